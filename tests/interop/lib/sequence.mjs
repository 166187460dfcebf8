import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';

/** The numbers `from`, `from + 1`, ... */
export const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => from + i);

/**
 * Asserts that exactly these values arrived, in this order. Unlike deepEqual, which prints long
 * lists in full, it says what a reader wants to know: what is missing, repeated or out of place.
 */
export function assertSequence(actual, expected, what) {
  if (isDeepStrictEqual(actual, expected)) return;
  const at = expected.findIndex((value, i) => !isDeepStrictEqual(value, actual[i]));
  const place = at === -1 ? expected.length : at;
  const show = (list) => (list.length ? `${list.length} (${JSON.stringify(list.slice(0, 8))})` : 'none');
  assert.fail(
    `${what}: expected ${expected.length} values, got ${actual.length}; ` +
      `first difference at ${place}: expected ${JSON.stringify(expected[place])}, got ${JSON.stringify(actual[place])}; ` +
      `missing: ${show(expected.filter((value) => !actual.includes(value)))}; ` +
      `repeated: ${show(actual.filter((value, i) => actual.indexOf(value) !== i))}; ` +
      `unexpected: ${show(actual.filter((value) => !expected.includes(value)))}`,
  );
}

/** The longest time between two neighbours of `times`. */
export const longestGap = (times) => Math.max(0, ...times.slice(1).map((time, i) => time - times[i]));
