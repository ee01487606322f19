/**
 * `rivulet-client/worker`: one socket for all tabs of a user, by a SharedWorker.
 *
 * The worker is named by the address, the user and this package's version: another user's tab, or one of another
 * version, never joins. Where there is no SharedWorker (Chrome on Android) each tab has its own socket, and
 * {@link Client.shared} says so.
 */

import { type Client, type ClientOptions, makeClient } from './client.js';
import { RivuletError } from './errors.js';
import type { CommandMap, EventMap } from './generated.js';
import { asFault, type Fault, type FromTab, type ToTab } from './hub.js';
import { type Cursor, type Link, type MakeLink, type State, socketLink } from './link.js';
import { Pattern } from './pattern.js';
import type { AnyFamily, CommandsOf, EventsOf } from './types.js';
import { VERSION } from './version.js';

export interface SharedClientOptions<Families extends readonly AnyFamily[] = readonly AnyFamily[]>
  extends Omit<ClientOptions<Families>, 'WebSocket'> {
  /** Who a token is of (its claim `sub`): to be given where the router takes another claim. */
  userOf?: (token: string) => string;
  /** Where the worker's script is, when a bundler can't find it by itself. */
  workerUrl?: string | URL;
}

/** Makes a client like `createClient` does, whose socket is shared with the user's other tabs. */
export function createSharedClient<const Families extends readonly AnyFamily[] = readonly []>(
  options: SharedClientOptions<Families>,
): Client<EventMap & EventsOf<Families>, CommandMap & CommandsOf<Families>>;
export function createSharedClient(options: SharedClientOptions): unknown {
  const { userOf = subject, workerUrl = new URL('./shared-worker.js', import.meta.url) } = options;
  const usable = typeof SharedWorker === 'function' && typeof navigator.locks === 'object';
  return makeClient(options, usable ? sharedLink(userOf, workerUrl) : socketLink);
}

/** A tab's link to the worker that holds its user's session. */
const sharedLink =
  (userOf: (token: string) => string, workerUrl: string | URL): MakeLink =>
  (options, owner): Link => {
    const { url, token, known } = options;
    let state = 'waiting' as State;
    let error: RivuletError | undefined;
    let cursor: Cursor | undefined;
    let port: MessagePort | undefined;
    let user: string | undefined;
    let release = () => {};
    /** Where the worker can't be had, what is done without it. */
    let own: Link | undefined;

    const tell = (said: FromTab) => port?.postMessage(said);
    const become = (next: State, why?: Fault) => {
      error = why && new RivuletError(why.code, why.message, why.field, why.body);
      if (state === next) return;
      state = next;
      owner.changed();
    };
    const closed = () => state === 'closed';
    const ask = async () => (typeof token === 'function' ? token() : token);

    const leave = () => {
      tell({ do: 'leave' });
      port?.close();
      port = undefined;
      release();
    };

    const join = async () => {
      become('connecting');
      try {
        user = userOf(await ask());
      } catch (fault) {
        owner.fault(fault);
        return become('stopped', asFault(fault));
      }
      if (closed()) return;
      const lock = `rivulet ${crypto.randomUUID()}`;
      await new Promise<void>((held) => {
        navigator.locks.request(lock, () => {
          held();
          return new Promise<void>((resolve) => {
            release = resolve;
          });
        });
      });
      if (closed()) return release();
      const worker = new SharedWorker(workerUrl, {
        type: 'module',
        name: `rivulet ${VERSION} ${url} ${user}`,
      });
      worker.onerror = () => {
        leave();
        own = socketLink(options, owner);
        own.open(cursor);
      };
      port = worker.port;
      port.onmessage = ({ data }: MessageEvent<ToTab>) => hear(data);
      const patterns = [...owner.patterns()];
      tell({
        join: { url, device: options.device, known: [...known], patterns, lock, ...(cursor && { cursor }) },
      });
    };

    const hear = (said: ToTab) => {
      if ('state' in said) {
        // A tab without a cursor begins where the session is.
        if (!cursor && said.cursor) {
          cursor = said.cursor;
          owner.moved();
        }
        const began = said.state === 'connected' && state !== 'connected';
        become(said.state, said.error);
        if (began) owner.began();
      } else if ('event' in said) {
        const { event } = said;
        if (event.seq && cursor && event.seq <= cursor.seq) return;
        move(event.seq);
        if (known.has(event.type)) owner.event({ kind: 'event', event: event as never });
        // Another tab's patterns may have brought it.
        else if ([...owner.patterns()].some((text) => new Pattern(text).matches(event.type)))
          owner.event({ kind: 'unknown', event: event as never });
      } else if ('gap' in said) {
        const { stream, to_seq, reason } = said.gap;
        const at = cursor?.stream === stream ? cursor.seq : undefined;
        // A tab that is past it has seen what another one asked for again.
        const back = reason === 'future_seq' || reason === 'replaced';
        if (at !== undefined && (back ? at <= to_seq : at >= to_seq)) return;
        cursor = { stream, seq: to_seq };
        owner.moved();
        owner.gap(said.gap);
      } else if ('seq' in said) move(said.seq);
      else if ('answer' in said) owner.answer(said.answer);
      else if ('pattern' in said) {
        if ([...owner.patterns()].includes(said.pattern)) owner.refused(said.pattern, asError(said.refused));
      } else if ('fault' in said) owner.fault(asError(said.fault));
      else answerToken(said.ask);
    };

    const answerToken = async (asked: number) => {
      try {
        const fresh = await ask();
        if (userOf(fresh) === user) return tell({ token: fresh, asked });
        // Somebody else is logged in here now: another worker's business.
        tell({ refused: 'the tab is of another user now', asked });
        leave();
        cursor = undefined;
        join();
      } catch (fault) {
        tell({ refused: String(fault), asked });
      }
    };

    const move = (seq?: number) => {
      if (!cursor || !seq || seq <= cursor.seq) return;
      cursor.seq = seq;
      owner.moved();
    };
    const seen = () => document.visibilityState === 'visible' && tell({ do: 'look' });

    return {
      get shared() {
        return !own;
      },
      get state() {
        return own?.state ?? state;
      },
      get error() {
        return own?.error ?? error;
      },
      get cursor() {
        return own ? own.cursor : cursor;
      },
      open(from) {
        cursor = from;
        document.addEventListener('visibilitychange', seen, { signal: options.signal });
        join();
      },
      send(text) {
        if (own) return own.send(text);
        if (state !== 'connected') return false;
        tell({ send: text });
        return true;
      },
      sync: () => (own ? own.sync() : tell({ patterns: [...owner.patterns()] })),
      reconnect: () => (own ? own.reconnect() : port ? tell({ do: 'reconnect' }) : join()),
      look: () => (own ? own.look() : tell({ do: 'look' })),
      close() {
        own?.close();
        become('closed');
        leave();
      },
    };
  };

const asError = ({ code, message, field, body }: Fault) => new RivuletError(code, message, field, body);

/** Who a token is of: the claim `sub`, or the token itself where it is no JWT, as a development router has it. */
function subject(token: string): string {
  const [, payload] = token.split('.');
  try {
    const bytes = Uint8Array.from(atob((payload ?? '').replace(/-/g, '+').replace(/_/g, '/')), (character) =>
      character.charCodeAt(0),
    );
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub);
  } catch {
    return token;
  }
}
