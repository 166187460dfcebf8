// Waiting, always with a deadline and always with a story: a test that gives up says what it
// expected and what it had seen by then.

export const DEADLINE_MS = 10_000;

/** Resolves as `promise` does, or fails when it takes longer than `ms`. */
export async function within(promise, expected, ms = DEADLINE_MS) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`expected ${expected} within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Resolves with the first truthy value of `condition()`, or fails with what `seen()` shows.
 * For things that have no event to wait for; what has one is awaited with `within`.
 */
export async function until(expected, condition, { ms = DEADLINE_MS, seen } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) {
      const story = seen ? `; seen: ${tail(JSON.stringify(seen()))}` : '';
      throw new Error(`expected ${expected} within ${ms} ms${story}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// The end of a story is where it went wrong.
const tail = (text) => (text.length > 2_000 ? `...${text.slice(-2_000)}` : text);
