/**
 * One session for all tabs of a user, in a SharedWorker: its owner is the {@link Hub}, to which each tab has a port.
 *
 * The hub hands every event to every tab, and each tab drops what it has seen or has nobody for: so a tab may come
 * with an older cursor than the others, and the session goes back for it.
 */

import type { RivuletError } from './errors.js';
import type { Gap } from './generated.js';
import {
  type Answer,
  type Cursor,
  type Link,
  type MakeLink,
  type Owner,
  type State,
  socketLink,
} from './link.js';
import { BUILTIN, type Received } from './protocol.js';

/** An error on its way between a worker and a tab: a class does not survive it. */
export type Fault = Pick<RivuletError, 'code' | 'message' | 'field' | 'body'>;

/** What a tab tells the hub. */
export type FromTab =
  | {
      join: {
        url: string;
        device: string;
        known: [type: string, optional: readonly string[] | undefined][];
        patterns: string[];
        cursor?: Cursor;
        lock?: string;
      };
    }
  | { patterns: string[] }
  | { send: string }
  | { token: string; asked: number }
  | { refused: unknown; asked: number }
  | { do: 'reconnect' | 'look' | 'leave' };

/** What the hub tells a tab. */
export type ToTab =
  | { state: State; error?: Fault; cursor?: Cursor }
  | { event: Extract<Received, { kind: 'event' | 'unknown' }>['event'] }
  | { gap: Gap }
  | { seq: number }
  | { answer: Answer }
  | { pattern: string; refused: Fault }
  | { fault: Fault }
  | { ask: number };

interface Tab {
  port: MessagePort;
  patterns: string[];
  /** When somebody last looked at it. */
  seen: number;
}

/** How long a tab may take for a token, in milliseconds; then another is asked. */
const TOKEN_WITHIN = 10_000;

export const asFault = (error: unknown): Fault => {
  const { code = 'CLOSED', message = String(error), field, body } = Object(error) as Partial<RivuletError>;
  return { code, message, ...(field && { field }), ...(body && { body }) };
};

/** The worker's side. */
export class Hub {
  readonly #tabs = new Set<Tab>();
  readonly #known = new Map(BUILTIN);
  #gone = new AbortController();
  readonly #asked = new Map<number, (answer: FromTab) => void>();
  readonly #make: MakeLink;
  #link: Link | undefined;
  #count = 0;
  #telling = false;

  constructor(make: MakeLink = socketLink) {
    this.#make = make;
  }

  /** Takes a tab's port. */
  connect(port: MessagePort): void {
    const tab: Tab = { port, patterns: [], seen: 0 };
    port.onmessage = ({ data }: MessageEvent<FromTab>) => this.#hear(tab, data);
  }

  #hear(tab: Tab, said: FromTab): void {
    if ('join' in said) this.#join(tab, said.join);
    else if (!this.#tabs.has(tab)) return;
    else if ('patterns' in said) {
      tab.patterns = said.patterns;
      this.#link?.sync();
    } else if ('send' in said) this.#send(tab, said.send);
    else if ('asked' in said) this.#asked.get(said.asked)?.(said);
    else if (said.do === 'leave') this.#leave(tab);
    else if (said.do === 'reconnect') this.#link?.reconnect();
    else {
      tab.seen = ++this.#count;
      this.#link?.look();
    }
  }

  #join(
    tab: Tab,
    { url, device, known, patterns, cursor, lock }: Extract<FromTab, { join: unknown }>['join'],
  ): void {
    Object.assign(tab, { patterns, seen: ++this.#count });
    this.#tabs.add(tab);
    for (const [type, optional] of known) this.#known.set(type, optional);
    // A tab holds its lock for as long as it lives, however it ends.
    if (lock) navigator.locks.request(lock, () => this.#leave(tab));
    if (!this.#link) {
      const token = () => this.#token();
      const { WebSocket } = globalThis;
      this.#link = this.#make(
        { url, token, device, known: this.#known, WebSocket: WebSocket as never, signal: this.#gone.signal },
        this.#owner(),
      );
      this.#link.open(cursor);
      return;
    }
    const ours = this.#link.cursor;
    // A session that has no position yet would begin with what happens now.
    const older = cursor && (!ours || cursor.stream !== ours.stream || cursor.seq < ours.seq);
    this.#tell(tab, this.#state());
    // From where the new one stands; the others drop what they have seen.
    if (older) this.#link.open(cursor);
    else this.#link.sync();
  }

  #send(tab: Tab, text: string): void {
    try {
      this.#link?.send(text);
    } catch (error) {
      const { code, message } = asFault(error);
      this.#tell(tab, { answer: { type: 'error', id: JSON.parse(text).id, data: { code, message } } });
    }
  }

  #leave(tab: Tab): void {
    if (!this.#tabs.delete(tab)) return;
    tab.port.close();
    if (this.#tabs.size > 0) this.#link?.sync();
    else {
      this.#link?.close();
      this.#gone.abort();
      this.#gone = new AbortController();
      this.#link = undefined;
    }
  }

  #owner(): Owner {
    return {
      patterns: () => [...this.#tabs].flatMap(({ patterns }) => patterns),
      event: ({ event }) => this.#tellAll({ event }),
      gap: (gap) => this.#tellAll({ gap }),
      answer: (answer) => this.#tellAll({ answer }),
      // Each tab asks again what it has open when it hears of the session.
      began: () => {},
      refused: (pattern, error) => this.#tellAll({ pattern, refused: asFault(error) }),
      fault: (error) => this.#tellAll({ fault: asFault(error) }),
      changed: () => this.#tellAll(this.#state()),
      moved: () => this.#moved(),
    };
  }

  // Events move the tabs' cursors themselves; what moves it beside them is told behind them, once for many.
  #moved(): void {
    if (this.#telling) return;
    this.#telling = true;
    queueMicrotask(() => {
      this.#telling = false;
      const seq = this.#link?.cursor?.seq;
      if (seq !== undefined) this.#tellAll({ seq });
    });
  }

  #state(): ToTab {
    const { state = 'closed', error, cursor } = this.#link ?? {};
    return { state, ...(error && { error: asFault(error) }), ...(cursor && { cursor: { ...cursor } }) };
  }

  /** Asks the tabs, the one last looked at first. */
  async #token(): Promise<string> {
    let why: unknown = 'no tab has a token';
    for (const tab of [...this.#tabs].sort((one, other) => other.seen - one.seen)) {
      if (!this.#tabs.has(tab)) continue;
      const asked = ++this.#count;
      const answer = await new Promise<FromTab | undefined>((resolve) => {
        this.#asked.set(asked, resolve);
        this.#tell(tab, { ask: asked });
        setTimeout(resolve, TOKEN_WITHIN);
      });
      this.#asked.delete(asked);
      if (answer && 'token' in answer) return answer.token;
      if (answer && 'refused' in answer) why = answer.refused;
    }
    throw new Error(String(why));
  }

  #tell(tab: Tab, what: ToTab): void {
    tab.port.postMessage(what);
  }

  #tellAll(what: ToTab): void {
    for (const tab of this.#tabs) this.#tell(tab, what);
  }
}
