/** Runs one task at a time, always with the newest argument. */

const PATIENCE_MS = 400; // a run that takes longer is given up for a newer argument

/**
 * Returns a function that starts `task(argument, signal)`. While a run is on, it keeps only the
 * newest argument for the next one. So the first key stroke waits for nothing, a slow service is
 * asked once at a time, and an older answer never comes after a newer one.
 */
export function newestOnly(task) {
  let waiting = null;
  let running = null;

  async function work() {
    try {
      while (waiting) {
        const { argument } = waiting;
        waiting = null;
        running = { controller: new AbortController(), started: performance.now() };
        await task(argument, running.controller.signal).catch(ignoreAbort);
      }
    } finally {
      running = null;
    }
  }

  return (argument) => {
    waiting = { argument };
    if (running === null) return work();
    const left = PATIENCE_MS - (performance.now() - running.started);
    const { controller } = running;
    setTimeout(() => controller.abort(), Math.max(0, left));
    return undefined;
  };
}

function ignoreAbort(error) {
  if (error.name !== "AbortError") throw error;
}
