/** What applications call: events by pattern, commands, and what becomes of the connection. */

import { after } from './backoff.js';
import { type CommandOptions, commands, random } from './commands.js';
import type { SocketConstructor } from './connection.js';
import { RivuletError } from './errors.js';
import type { CommandMap, EventMap, Gap } from './generated.js';
import { eventQueue } from './iterator.js';
import { type Cursor, type MakeLink, type State, socketLink } from './link.js';
import { Pattern } from './pattern.js';
import { BUILTIN, type KnownTypes, type UnknownEvent } from './protocol.js';
import type {
  AnyFamily,
  Calls,
  CommandsOf,
  EventFor,
  EventsOf,
  PatternFor,
  ReplyOf,
  RequestOf,
} from './types.js';

/** Where a cursor is kept over page loads. */
export interface CursorStore {
  load(): Cursor | null | undefined | Promise<Cursor | null | undefined>;
  /** Called at most four times a second, and when the client is closed or the page goes. */
  save(cursor: Cursor): void | Promise<void>;
}

export interface ClientOptions<Families extends readonly AnyFamily[] = readonly AnyFamily[]> {
  /** The router: `https://events.example.com` or `wss://…`; without a path, the router's own. */
  url: string;
  /** A token, or what brings one: asked at every connect, and before the last one expires. */
  token: string | (() => string | Promise<string>);
  /** Families of one's own, as `rivulet codegen --lang ts` writes them. */
  families?: Families;
  /** Where the last client got to. Without a store, or with nothing in it, a client begins with what happens now. */
  cursorStore?: CursorStore;
  /** Names the client among the user's, at most 64 characters: its next connection takes the seat of its last. */
  device?: string;
  /** How many commands may wait for their answer, without a connection too (100). */
  maxCommands?: number;
  /** Where there is no global `WebSocket`, as in Node before 22. */
  WebSocket?: SocketConstructor;
}

/** A client of one user. */
export interface Client<Events = EventMap, Commands = CommandMap> {
  /** What becomes of the connection. */
  readonly state: State;
  /** Why the client is `stopped`, or what ended the last connection. */
  readonly error: RivuletError | undefined;
  /** Where in the stream the client stands: all up to here was handed on. */
  readonly cursor: Cursor | undefined;
  /** Whether other tabs use the same socket. */
  readonly shared: boolean;
  /** A call for each command: `client.command.createBlob({ … })`; {@link call} with another face. */
  readonly command: Calls<Commands, CommandOptions>;

  /**
   * Calls `handler` with each event of a pattern, or of several, in the stream's order. What it throws, or what the
   * promise that it returns is rejected with, goes to {@link onError}; the next event comes all the same.
   *
   * Returns what ends it. Throws {@link InvalidPattern}.
   */
  on<P extends PatternFor<Events>>(
    pattern: P | readonly P[],
    handler: (event: EventFor<Events, P>) => unknown,
  ): () => void;

  /**
   * The events of a pattern, or of several, from now on. Ends quietly when the signal is aborted, the loop is left or
   * the client is closed; with {@link LagError} when it is read so slowly that its queue is full, as a WebSocket
   * can't be told to wait; with the router's error when a pattern is refused. Throws {@link InvalidPattern}.
   */
  events<P extends PatternFor<Events>>(
    pattern: P | readonly P[],
    options?: {
      signal?: AbortSignal;
      /** How many events may wait to be read (1,000). */
      maxQueue?: number;
    },
  ): AsyncIterableIterator<EventFor<Events, P>>;

  /**
   * Sends a command and waits for its answer, over reconnects; a backend does it once. Rejects with
   * {@link RivuletError}: what the backend or the router said, `COMMAND_TIMEOUT` when the deadline passed before it
   * could be sent, `OUTCOME_UNKNOWN` when it was sent and no answer came, `QUEUE_FULL`, `CLOSED`; or with the
   * signal's reason. What the router finds too fast is sent again, slower.
   */
  call<Name extends keyof Commands & string>(
    name: Name,
    data: RequestOf<Commands, Name>,
    options?: CommandOptions,
  ): Promise<ReplyOf<Commands, Name>>;

  /** Calls `listener` whenever {@link state} is another. Returns what ends it, as the others do. */
  onState(listener: (state: State) => void): () => void;
  /** Calls `listener`, before the next event, when a range of the stream is gone: what is shown may be stale. */
  onGap(listener: (gap: Gap) => void): () => void;
  /**
   * Calls `listener` with events of types that neither this version nor the families know. Data is never checked
   * here: an event stored under an earlier schema comes to its handlers as it is.
   */
  onUnknown(listener: (event: UnknownEvent) => void): () => void;
  /**
   * Calls `listener` with what nobody waits for: what a handler throws, what stops the client, an outage that outlasts
   * the first try, once each. Without a listener it goes to the console.
   */
  onError(listener: (error: unknown) => void): () => void;

  /** Connects anew, now, also after the router said to stay away. */
  reconnect(): void;
  /** Ends it for good: iterators end, commands are rejected with `CLOSED`. */
  close(): void;
}

/** How often a cursor is kept, in milliseconds. */
const SAVES_EVERY = 250;

interface Reader {
  patterns: Pattern[];
  take(event: unknown): void;
  /** Its pattern was refused, or the client is closed. */
  end(error?: RivuletError): void;
}

/**
 * Makes a client, which connects by itself. Its types are those of the built-in families and of `families`.
 *
 * Throws {@link RivuletError} where there is no `WebSocket`.
 */
export function createClient<const Families extends readonly AnyFamily[] = readonly []>(
  options: ClientOptions<Families>,
): Client<EventMap & EventsOf<Families>, CommandMap & CommandsOf<Families>>;
/** The same with its types named. What tells a known event from an unknown one are the families' lists. */
export function createClient<Events, Commands = CommandMap>(
  options: keyof Events extends keyof EventMap
    ? ClientOptions
    : ClientOptions & { families: readonly AnyFamily[] },
): Client<Events, Commands>;
export function createClient(options: ClientOptions): unknown {
  return makeClient(options, socketLink);
}

/** A client over any kind of link. */
export function makeClient(options: ClientOptions, make: MakeLink): Client<Record<string, unknown>> {
  const { families = [], cursorStore, maxCommands = 100 } = options;
  const readers = new Set<Reader>();
  /** Who wants a type, found once. */
  const wanting = new Map<string, Reader[]>();
  const states = new Set<Listener<State>>();
  const gaps = new Set<Listener<Gap>>();
  const unknown = new Set<Listener<UnknownEvent>>();
  const faults = new Set<Listener<unknown>>();
  let syncing = false;
  let saving: ReturnType<typeof setTimeout> | undefined;

  const WebSocket = options.WebSocket ?? (globalThis.WebSocket as unknown as SocketConstructor | undefined);
  if (!WebSocket) throw new RivuletError('CLOSED', 'no WebSocket: give one in the options');
  const { url, token, device = random() } = options;
  const known: KnownTypes = new Map([
    ...BUILTIN,
    ...families.flatMap((family) => Object.entries(family.eventTypes)),
  ]);
  const fault = (error: unknown) => {
    if (faults.size) for (const listener of faults) listener(error);
    else console.error(error);
  };
  const gone = new AbortController();
  const { signal } = gone;
  const link = make(
    { url, token, device, WebSocket, known, signal },
    {
      patterns: () => [...readers].flatMap(({ patterns }) => patterns.map(String)),
      event({ kind, event }) {
        if (kind === 'unknown') return tell(unknown, event);
        let those = wanting.get(event.type);
        if (!those) {
          those = [...readers].filter(({ patterns }) =>
            patterns.some((pattern) => pattern.matches(event.type)),
          );
          wanting.set(event.type, those);
        }
        for (const reader of those) if (readers.has(reader)) reader.take(event);
      },
      gap: (gap) => tell(gaps, gap),
      answer: (answer) => waiting.answer(answer),
      began: () => waiting.sendAll(),
      refused(pattern, error) {
        for (const reader of readers)
          if (reader.patterns.some(({ text }) => text === pattern)) reader.end(error);
      },
      fault,
      changed: () => tell(states, link.state),
      moved() {
        if (cursorStore) saving ??= after(SAVES_EVERY, save);
      },
    },
  );
  const waiting = commands(maxCommands, link.send);

  const tell = <T>(to: Set<Listener<T>>, value: T) => {
    for (const listener of to) {
      try {
        listener(value);
      } catch (error) {
        fault(error);
      }
    }
  };

  const save = async () => {
    clearTimeout(saving);
    saving = undefined;
    try {
      if (client.cursor) await cursorStore?.save(client.cursor);
    } catch (error) {
      fault(error);
    }
  };

  // One message for all that a task changes.
  const changed = () => {
    wanting.clear();
    if (syncing) return;
    syncing = true;
    queueMicrotask(() => {
      syncing = false;
      link.sync();
    });
  };

  const read = (patterns: string | readonly string[], take: Reader['take'], end: Reader['end']) => {
    const reader = { patterns: [patterns].flat().map((text) => new Pattern(text as string)), take, end };
    readers.add(reader);
    changed();
    return () => {
      readers.delete(reader);
      changed();
    };
  };

  const call = (name: string, data: unknown, how?: CommandOptions) => waiting.call(name, data, how) as never;

  const begin = async () => {
    let cursor: Cursor | null | undefined;
    try {
      cursor = await cursorStore?.load();
    } catch (error) {
      fault(error);
    }
    if (link.state === 'closed') return;
    globalThis.addEventListener?.('pagehide', save, { signal });
    link.open(cursor && Number.isSafeInteger(cursor.seq) ? { ...cursor } : undefined);
  };
  // Whatever the same task subscribes to rides along in the handshake.
  queueMicrotask(begin);

  const client: Client<Record<string, unknown>> = {
    get state() {
      return link.state;
    },
    get error() {
      return link.error;
    },
    get cursor() {
      return link.cursor && { ...link.cursor };
    },
    get shared() {
      return link.shared;
    },
    command: new Proxy({} as never, {
      get: (_, name) =>
        // What others look for in any object: who awaits or prints this means no command.
        typeof name === 'string' && !/^(then|toJSON)$/.test(name)
          ? (data: unknown, how?: CommandOptions) =>
              call(
                name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
                data,
                how,
              )
          : undefined,
    }),
    on: (pattern, handler) =>
      read(
        pattern,
        (event) => {
          try {
            (handler(event as never) as Promise<unknown> | undefined)?.catch?.(fault);
          } catch (error) {
            fault(error);
          }
        },
        (error) => error && fault(error),
      ),
    events(pattern, { signal, maxQueue = 1000 } = {}) {
      const end = () => queue.end();
      const queue = eventQueue<never>(maxQueue, () => {
        signal?.removeEventListener('abort', end);
        stop();
      });
      const stop = read(pattern, queue.push as Reader['take'], queue.end);
      signal?.addEventListener('abort', end);
      if (signal?.aborted || link.state === 'closed') end();
      return queue.iterator;
    },
    call,
    onState: listening(states),
    onGap: listening(gaps),
    onUnknown: listening(unknown),
    onError: listening(faults),
    reconnect: link.reconnect,
    close() {
      if (link.state === 'closed') return;
      save();
      link.close();
      gone.abort();
      waiting.close();
      for (const reader of readers) reader.end();
    },
  };
  return client;
}

type Listener<T> = (value: T) => void;

const listening =
  <T>(all: Set<Listener<T>>) =>
  (listener: Listener<T>) => {
    all.add(listener);
    return () => void all.delete(listener);
  };
