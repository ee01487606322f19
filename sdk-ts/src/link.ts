/** A session kept alive: the next connection after each that ends, from where the last one got to. */

import { after, ceiling, delay } from './backoff.js';
import { type Connection, connection as connect, type Socket, type SocketConstructor } from './connection.js';
import { failure, RivuletError } from './errors.js';
import { CLOSE_CODES, type ClientFrame, type Gap, type Head, type ServerFrame } from './generated.js';
import { Pattern } from './pattern.js';
import { decode, type KnownTypes, type Received, SUBPROTOCOL } from './protocol.js';

/** Where in the stream a client stands: all up to here was handed on. */
export interface Cursor {
  /** The stream's epoch. */
  stream: string;
  /** The last sequence. */
  seq: number;
}

/**
 * - `connecting`: a socket is being opened.
 * - `connected`: events come.
 * - `waiting`: for the next try, or to be online.
 * - `stopped`: the router said not to come back by oneself, and `error` says why; `reconnect()` tries again.
 * - `closed`: for good.
 */
export type State = 'connecting' | 'connected' | 'waiting' | 'stopped' | 'closed';

/** An answer that carries the id of what it answers. */
export type Answer = Extract<ServerFrame, { type: 'reply' | 'error' }>;

/** Who a link is for. */
export interface Owner {
  /** All patterns that somebody waits for. */
  patterns(): Iterable<string>;
  /** An event that was not seen before; the cursor stands behind it already. */
  event(received: Extract<Received, { kind: 'event' | 'unknown' }>): void;
  /** A range of the stream is gone; the cursor stands behind it already. */
  gap(gap: Gap): void;
  /** The answer to something that was sent. */
  answer(answer: Answer): void;
  /** A session began: what was sent and not answered may be sent again. */
  began(): void;
  /** A pattern is not in force and won't be. */
  refused(pattern: string, error: RivuletError): void;
  /** Something went wrong that nobody waits for. */
  fault(error: unknown): void;
  /** The state is another. */
  changed(): void;
  /** The cursor is another. */
  moved(): void;
}

/** What a client needs of the session that it uses, its own or one shared with other tabs. */
export interface Link {
  readonly state: State;
  /** Why it is `stopped`, or was disconnected last. */
  readonly error: RivuletError | undefined;
  readonly cursor: Cursor | undefined;
  /** Whether other tabs use the same socket. */
  readonly shared: boolean;
  /** Begins, from a cursor if there is one. */
  open(cursor?: Cursor): void;
  /** Sends a text if there is a session. Throws `TOO_LARGE` for one that the router would end it for. */
  send(text: string): boolean;
  /** The owner's patterns are others now. */
  sync(): void;
  /** Connects anew, now. */
  reconnect(): void;
  /** Somebody looks. */
  look(): void;
  close(): void;
}

export interface LinkOptions {
  url: string;
  token: string | (() => string | Promise<string>);
  device: string;
  WebSocket: SocketConstructor;
  /** The event types that are not unknown. */
  known: KnownTypes;
  /** Aborted when the link is closed: what it listens to ends with it. */
  signal: AbortSignal;
}

/** Makes a link, which does nothing until it is opened. */
export type MakeLink = (options: LinkOptions, owner: Owner) => Link;

/** Without a seat: how often somebody's look makes it ask again, in milliseconds. */
const ASKS_AGAIN = 60_000;
/** The id of this link's own messages that are answered. */
const CHANGE = 'patterns';

/** A link over sockets of its own. */
export const socketLink: MakeLink = ({ url, token, device, WebSocket, known, signal }, owner) => {
  let state: State = 'waiting';
  let error: RivuletError | undefined;
  let cursor: Cursor | undefined;
  let connection: Connection | undefined;
  /** The patterns that were asked for in the query, or are in force because we asked. */
  let asked: string[] = [];
  const refused = new Set<string>();
  /** The patterns that were sent last and not answered: one change at a time. */
  let changing: string[] | undefined;
  /** What the router said before it let us in. */
  let said: RivuletError | undefined;
  /** It stopped for want of a seat, which may be free later. */
  let seatless = false;
  /** How long a message may be. */
  let mostBytes: number;
  let attempt = 0;
  /** When the last try began, or it stopped. */
  let triedAt = 0;
  /** What is done for an earlier connection is of no use to this one. */
  let turn = 0;
  let timer: ReturnType<typeof setTimeout>;

  const send = (frame: ClientFrame) => connection?.send(JSON.stringify(frame));

  /** Ends what there is, and begins a turn. */
  const leave = (next: State) => {
    clearTimeout(timer);
    connection?.close();
    connection = changing = undefined;
    become(next);
    return ++turn;
  };

  const become = (next: State) => {
    if (state === next) return;
    state = next;
    owner.changed();
  };

  const stop = (why: RivuletError) => {
    error = why;
    triedAt = performance.now();
    leave('stopped');
    owner.fault(why);
  };

  const tryLater = (retryAfter?: number) => {
    leave('waiting');
    timer = setTimeout(open, delay(attempt++, retryAfter));
  };

  const open = async () => {
    if (state === 'closed') return;
    const mine = leave('connecting');
    triedAt = performance.now();
    seatless = false;
    said = undefined;
    let bearer: string;
    try {
      bearer = await (typeof token === 'function' ? token() : token);
    } catch (fault) {
      if (mine === turn) {
        owner.fault(fault);
        tryLater();
      }
      return;
    }
    if (mine !== turn) return;
    asked = wanted();
    const query: Record<string, string> = { device };
    if (cursor) Object.assign(query, cursor);
    if (asked[0]) query.events = asked.join();
    const protocols = [SUBPROTOCOL];
    // A token that a header can't hold, as a development router takes, goes by the query.
    if (/^[\w!#$%&'*+.^`|~-]+$/.test(bearer)) protocols.push(`bearer.${bearer}`);
    else query.token = bearer;
    let socket: Socket;
    try {
      socket = new WebSocket(address(url, query), protocols);
    } catch (fault) {
      return stop(new RivuletError('CLOSED', `${url}: ${fault}`));
    }
    connection = connect(
      socket,
      (text) => {
        for (const received of decode(text, known)) {
          // A handler may have closed the client, or a frame this connection.
          if (mine !== turn) return;
          take(received);
        }
      },
      ended,
    );
  };

  const ended = (code: number, reason: string) => {
    // Whoever was let in and stayed begins anew; whoever is thrown out at once waits longer each time.
    if (state === 'connected' && performance.now() - triedAt > ceiling(attempt)) attempt = 0;
    error = said ?? new RivuletError('CLOSED', `${url}: closed ${code} ${reason}`);
    const advice = CLOSE_CODES[code as keyof typeof CLOSE_CODES];
    // What a close says of it, an error has said before.
    const unseated = advice === 'when_allowed' && !error.retryAfter;
    if (advice === 'no' || unseated || (advice === 'new_token' && typeof token !== 'function')) {
      seatless = unseated;
      stop(error);
    } else {
      tryLater(error.retryAfter);
      // The first try after an end is often good; of a longer outage one word is enough.
      if (attempt === 2) owner.fault(error);
    }
  };

  const move = (seq?: number) => {
    if (!cursor || !seq || seq <= cursor.seq) return;
    cursor.seq = seq;
    owner.moved();
  };

  const take = (received: Received) => {
    if (received.kind === 'frame') return frame(received.frame);
    if (state !== 'connected') return;
    if (received.kind === 'rejected') return owner.fault(received.error);
    const { seq } = received.event;
    if (seq && cursor && seq <= cursor.seq) return;
    // Before it is handed on: whoever closes the client on an event has had it.
    move(seq);
    owner.event(received);
  };

  const frame = (frame: ServerFrame) => {
    const { type, data, id } = frame;
    if (type === 'error') return refusal(failure(data), frame);
    if (type === 'connected') {
      // Of the query's patterns one was refused: nothing counts until an error says which.
      changing = asked.some((pattern) => !data.events.includes(pattern)) ? asked : undefined;
      if (changing) return;
      error = undefined;
      // Who resumes stands where it stood, whatever the node's head is.
      if (!cursor && data.stream) {
        cursor = { stream: data.stream, seq: data.seq ?? 0 };
        owner.moved();
      }
      mostBytes = data.limits.max_message_bytes;
      connection?.expect(2 * data.heartbeat_ms);
      become('connected');
      owner.began();
      return sync();
    }
    if (state !== 'connected') return;
    switch (type) {
      case 'gap':
        cursor = { stream: data.stream, seq: data.to_seq };
        owner.moved();
        return owner.gap(data);
      case 'reply':
        return owner.answer(frame);
      case 'token_expiring':
        return refresh();
      case 'draining': {
        const mine = turn;
        after(data.reconnect_after_ms, () => mine === turn && open());
        break;
      }
      case 'subscribed':
      case 'unsubscribed':
        inForce(data.events, id === CHANGE);
        break;
      case 'resumed':
        return move(data.to_seq);
    }
    move((data as Head).seq);
  };

  const refusal = (why: RivuletError, answer: Answer) => {
    const { id } = answer;
    const mine = turn;
    const again = () => {
      if (mine !== turn) return;
      changing = undefined;
      sync();
    };
    if (state !== 'connected') {
      said = why;
      // At once and from the unmoved cursor, so that the other patterns miss nothing.
      if (changing && lose(changing, why)) open();
    } else if (id === CHANGE && changing) {
      if (why.retryAfter) return after(why.retryAfter * 1000, again);
      // One that names none, such as too many, is of them all.
      if (!lose(changing, why)) for (const pattern of changing) refuse(pattern, why);
      again();
    } else if (id) owner.answer(answer);
    else owner.fault(why);
  };

  /** Gives up the pattern that an error names, if it does. */
  const lose = (of: string[], why: RivuletError) => {
    const pattern = of[Number(/^events\[(\d+)]/.exec(why.field ?? '')?.[1])];
    if (pattern) refuse(pattern, why);
    return pattern;
  };

  const refuse = (pattern: string, why: RivuletError) => {
    refused.add(pattern);
    owner.refused(pattern, why);
  };

  /** The fewest patterns that cover all that somebody waits for. */
  const wanted = () => {
    const all = new Set(owner.patterns());
    for (const pattern of refused) if (!all.delete(pattern)) refused.delete(pattern);
    let fewest: Pattern[] = [];
    for (const text of all) {
      const pattern = new Pattern(text);
      if (fewest.some((other) => pattern.within(other))) continue;
      fewest = [...fewest.filter((other) => !other.within(pattern)), pattern];
    }
    return fewest.map((pattern) => pattern.text);
  };

  const sync = () => {
    if (state !== 'connected' || changing) return;
    const all = wanted();
    const missing = all.filter((pattern) => !asked.includes(pattern));
    const needless = asked.filter((pattern) => !all.includes(pattern));
    // What is missing comes first: where a wide pattern gives way to narrow ones, nothing falls between.
    const type = missing[0] ? 'subscribe' : 'unsubscribe';
    const events = missing[0] ? missing : needless;
    if (!events[0]) return;
    changing = events;
    send({ type, id: CHANGE, events });
  };

  /** What the router says that is in force. */
  const inForce = (patterns: string[], answers: boolean) => {
    const ours = answers && changing ? [...asked, ...changing] : asked;
    if (answers) changing = undefined;
    else
      for (const pattern of asked)
        if (!patterns.includes(pattern))
          refuse(pattern, new RivuletError('FORBIDDEN', `the new token does not permit \`${pattern}\``));
    asked = patterns.filter((pattern) => ours.includes(pattern));
    sync();
  };

  const refresh = async () => {
    if (typeof token !== 'function') return;
    const mine = turn;
    try {
      const fresh = await token();
      if (mine === turn) send({ type: 'refresh_token', token: fresh });
    } catch (fault) {
      // When the old one ends, the next connection asks again.
      owner.fault(fault);
    }
  };

  const look = () => {
    if (seatless ? performance.now() - triedAt > ASKS_AGAIN : state === 'waiting') open();
  };
  // What was connected before the network went may be dead without knowing.
  const online = () => (state === 'connected' ? open() : look());
  const page = globalThis.document;
  const seen = () => page.visibilityState === 'visible' && look();

  return {
    shared: false,
    get state() {
      return state;
    },
    get error() {
      return error;
    },
    get cursor() {
      return cursor;
    },
    open(from) {
      cursor = from;
      globalThis.addEventListener?.('online', online, { signal });
      page?.addEventListener('visibilitychange', seen, { signal });
      open();
    },
    send(text) {
      if (state !== 'connected') return false;
      // As the router counts: in bytes.
      if (new TextEncoder().encode(text).length > mostBytes)
        throw new RivuletError('TOO_LARGE', `over ${mostBytes} bytes`);
      connection?.send(text);
      return true;
    },
    sync,
    reconnect() {
      // Another token may permit more.
      refused.clear();
      open();
    },
    look,
    close() {
      leave('closed');
    },
  };
};

/** The address of a socket: `http` is taken for `ws`, no path for the router's own. */
function address(url: string, query: Record<string, string>): string {
  const base = url.replace(/^http/, 'ws').replace(/^(\w+:\/\/[^/?]+)\/?(?=$|\?)/, '$1/api/v1/ws');
  return `${base}${base.includes('?') ? '&' : '?'}${new URLSearchParams(query)}`;
}
