/** How deep obj and arr may be nested in a payload. The call stack sets no limit: only `map-keys.ts` recurses. */

/** Deepest nesting that a payload may have. Open containers are kept in arrays, so this bounds memory alone. */
export const MAX_NESTING_DEPTH = 100_000;

/** Deepest nesting that the fast path converts; the decoder converts deeper ones. */
export const MAX_FAST_PATH_DEPTH = 64;

/** Deepest nesting inside one key of an obj whose bytes alone do not decide equality. Real keys are texts. */
export const MAX_KEY_DEPTH = 256;
