import { distance } from 'fastest-levenshtein';

/**
 * Returns the known name closest to a mistyped one by edit distance, ignoring case. Undefined when none is close enough to
 * suggest (more than a third of its letters differ).
 */
export function nearestName(unknown: string, known: Iterable<string>): string | undefined {
  const given = unknown.toLowerCase();
  let nearest: string | undefined;
  let nearestDistance = Number.POSITIVE_INFINITY;
  for (const name of known) {
    const edits = distance(given, name.toLowerCase());
    if (edits < nearestDistance && edits <= Math.max(2, Math.floor(name.length / 3)) && edits < name.length) {
      nearest = name;
      nearestDistance = edits;
    }
  }
  return nearest;
}

/** Returns `; did you mean "port"?`, or an empty text when no known name is close. */
export function didYouMean(unknown: string, known: Iterable<string>): string {
  const nearest = nearestName(unknown, known);
  return nearest === undefined ? '' : `; did you mean ${JSON.stringify(nearest)}?`;
}
