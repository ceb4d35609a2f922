import { distance } from 'fastest-levenshtein';

/**
 * The known name that a mistyped one most likely stands for: the one at the least edit distance, case aside. Undefined
 * when none is near enough to be worth naming (more than a third of its letters differ).
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

/** `; did you mean "port"?`, or nothing when no known name is near. */
export function didYouMean(unknown: string, known: Iterable<string>): string {
  const nearest = nearestName(unknown, known);
  return nearest === undefined ? '' : `; did you mean ${JSON.stringify(nearest)}?`;
}
