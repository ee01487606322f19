/** Commands that wait for their answer, over reconnects. */

import { failure, RivuletError } from './errors.js';
import type { Answer } from './link.js';

export interface CommandOptions {
  /** Gives up waiting; what a backend does meanwhile is not undone. */
  signal?: AbortSignal;
  /** How long to wait for the answer, in milliseconds (10,000), without a connection too. */
  deadline?: number;
}

/** The commands of one client. */
export interface Commands {
  call(type: string, data: unknown, options?: CommandOptions): Promise<unknown>;
  answer(answer: Answer): void;
  /** A session began: what is not answered is asked again, under the same id, which a backend does once. */
  sendAll(): void;
  close(): void;
}

interface Waiting {
  text: string;
  /** What it is when its deadline passes while it is not asked. */
  late: RivuletError;
  /** Whether its answer may come on this connection. */
  asked?: boolean;
  resolve(data: unknown): void;
  fail(error: unknown): void;
}

const DEADLINE = 10_000;
/** How many are under way at once; a router lets 16. */
const WINDOW = 8;

/** Some 50 bits that nobody else has. */
export const random = (): string => Math.random().toString(36).slice(2);

/** `send` says whether a session took the text; what it throws is the command's end. */
export function commands(most: number, send: (text: string) => boolean): Commands {
  const prefix = random();
  const waiting = new Map<string, Waiting>();
  let count = 0;
  let closed: RivuletError | undefined;
  /** Between two commands, in milliseconds, once the router has said that they come too fast. */
  let pace = 0;
  let pacing: ReturnType<typeof setTimeout> | undefined;

  const unknown = new RivuletError('OUTCOME_UNKNOWN', 'no answer');

  const go = (each: Waiting) => {
    try {
      each.asked = send(each.text);
    } catch (error) {
      each.fail(error);
    }
  };
  /** Sends what may be sent: all that the window has room for or, where the pace is set, one when it is due. */
  const next = (due = false) => {
    if (pacing || closed) return;
    let free = WINDOW;
    for (const { asked } of waiting.values()) if (asked) free--;
    for (const each of waiting.values()) {
      if (each.asked) continue;
      if (pace && !due) {
        // Which one it is, is seen then: this one may have been given up.
        pacing = setTimeout(() => {
          pacing = undefined;
          next(true);
        }, pace);
        return;
      }
      due = false;
      if (free-- < 1) return;
      go(each);
    }
    pace = 0;
  };

  return {
    call: (type, data, { signal, deadline = DEADLINE } = {}) =>
      new Promise((resolve, reject) => {
        const id = prefix + ++count;
        signal?.throwIfAborted();
        if (closed) throw closed;
        if (waiting.size >= most) throw new RivuletError('QUEUE_FULL', `${most} commands wait`);
        const settle =
          <T>(how: (value: T) => void) =>
          (value: T) => {
            clearTimeout(timer);
            signal?.removeEventListener('abort', abort);
            waiting.delete(id);
            how(value);
            next();
          };
        const each: Waiting = {
          text: JSON.stringify({ type, id, data }),
          late: new RivuletError('COMMAND_TIMEOUT', 'not sent'),
          resolve: settle(resolve),
          fail: settle(reject),
        };
        const abort = () => each.fail(signal?.reason);
        const timer = setTimeout(() => each.fail(each.asked ? unknown : each.late), deadline);
        signal?.addEventListener('abort', abort);
        waiting.set(id, each);
        next();
      }),
    answer({ type, id = '', data }) {
      const each = waiting.get(id);
      if (!each) return;
      if (type === 'reply') each.resolve(data);
      else if (data.code !== 'RATE_LIMITED') each.fail(failure(data));
      else {
        // The router did nothing with it now, and perhaps did on a connection before. More than ten of these in
        // a minute would end the connection.
        each.asked = false;
        if (each.late !== unknown) each.late = failure(data);
        // A backend may say it too, of one command; the others don't wait long for that.
        pace = Math.min(1000, pace * 2 || (data.retry_after ?? 1) * 1000);
        next();
      }
    },
    sendAll() {
      for (const each of waiting.values()) {
        if (each.asked) each.late = unknown;
        each.asked = false;
      }
      next();
    },
    close() {
      closed = new RivuletError('CLOSED', 'closed');
      clearTimeout(pacing);
      for (const each of waiting.values()) each.fail(closed);
    },
  };
}
