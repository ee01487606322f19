/** How long to wait before the next try. */

/** The longest delay that a timer takes, in milliseconds: beyond it `setTimeout` fires at once. */
const LONGEST = 2 ** 31 - 1;
const BASE = 500;
const CEILING = 30_000;

/** The most that the delay before try number `attempt` (from 0) may be: 0.5 s, doubling to 30 s. */
export const ceiling = (attempt: number): number => Math.min(CEILING, BASE * 2 ** attempt);

/**
 * The delay in milliseconds: anything up to its ceiling ("full jitter"), so that clients that lost the same node do
 * not come back together; after what the router asked for, in seconds, where it did.
 */
export const delay = (attempt: number, retryAfter = 0): number =>
  retryAfter * 1000 + Math.random() * ceiling(attempt);

/** {@link setTimeout} for times that somebody else said. */
export const after = (milliseconds: number, run: () => void): ReturnType<typeof setTimeout> =>
  setTimeout(run, Math.min(LONGEST, milliseconds));
