/** A bounded queue that is read with `for await`. */

import { LagError } from './errors.js';

/** The writing end. */
export interface EventQueue<T> {
  push(event: T): void;
  /** Takes nothing more; with an error, the iterator fails with it after what is queued. */
  end(error?: unknown): void;
  /** The reading end. */
  readonly iterator: AsyncIterableIterator<T>;
}

/**
 * Makes a queue of at most `most` events. When it is full it takes nothing more, and its iterator gives what is
 * queued and then fails with {@link LagError}. `ended` is called once, at its end.
 */
export function eventQueue<T extends { seq?: number }>(most: number, ended: () => void): EventQueue<T> {
  let queue: T[] = [];
  const takers: [resolve: (result: IteratorResult<T>) => void, reject: (error: unknown) => void][] = [];
  let open = true;
  let failure: unknown;
  const finish = ([resolve, reject]: (typeof takers)[number]) => {
    // An error is told once; who asks again is told that it is over.
    if (failure) reject(failure);
    else resolve({ done: true, value: undefined });
    failure = undefined;
  };
  const end = (error?: unknown) => {
    if (!open) return;
    open = false;
    failure = error;
    ended();
    // Once: nothing is pushed and nobody waits here any more.
    takers.map(finish);
  };
  return {
    end,
    push(event) {
      const taker = takers.shift();
      if (taker) taker[0]({ value: event });
      else if (queue.length < most) queue.push(event);
      else end(new LagError(queue.at(-1)?.seq));
    },
    iterator: {
      next: () =>
        new Promise((...taker) => {
          const value = queue.shift();
          if (value) taker[0]({ value });
          else if (open) takers.push(taker);
          else finish(taker);
        }),
      async return() {
        queue = [];
        end();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    },
  };
}
