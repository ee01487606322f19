/**
 * The protocol without a socket: text to what the router said, and what the client says to text.
 *
 * Reading checks what everything after it rests on: that a frame is one object with a `type` and `data`, and that
 * its sequences are numbers to count with. It does not check `data` against its whole schema: the router did, and
 * the types hold whoever builds one.
 */

import { InvalidPattern, RivuletError } from './errors.js';
import {
  type ClientFrame,
  type CommandMap,
  EVENT_TYPES,
  type EventFrame,
  SERVER_FRAMES,
  type ServerFrame,
} from './generated.js';
import { Pattern } from './pattern.js';

/** The WebSocket subprotocol of this version. */
export const SUBPROTOCOL = 'rivulet.v1';
/** The most characters in the `id` of a client's message. */
export const MAX_ID_LENGTH = 64;

/** An event of a type that this version does not know. */
export interface UnknownEvent {
  type: string;
  /** Where it stands in the stream; absent on a core source. */
  seq?: number;
  /** When the stream stored it or, on a core source, when the router got it. */
  time?: string;
  data: Record<string, unknown>;
}

/** One object of the router's, or why it can't be one. */
export type Received =
  | { kind: 'event'; event: EventFrame }
  | { kind: 'unknown'; event: UnknownEvent }
  | { kind: 'frame'; frame: ServerFrame }
  | { kind: 'rejected'; error: RivuletError };

/** A command to a backend, with the data that it takes. */
export type CommandFrame<Commands = CommandMap> = {
  [Name in keyof Commands & string]: {
    type: Name;
    /** Echoed in the answer; at most 64 characters. With it, asking again is safe. */
    id?: string;
    data: Commands[Name] extends { request: infer Request } ? Request : never;
  };
}[keyof Commands & string];

/** Event types, each with the fields that null leaves out; undefined: all. */
export type KnownTypes = ReadonlyMap<string, readonly string[] | undefined>;

/** The types of the built-in families. */
export const BUILTIN: KnownTypes = new Map(EVENT_TYPES.map((type) => [type, undefined]));
const serverFrames: ReadonlySet<unknown> = new Set(SERVER_FRAMES);

/**
 * Reads a text frame: one object, or an array of them in order. Never throws: what can't be read stands in its
 * place as `rejected`, and takes nothing else with it. `null` for a field that may be absent is read as absent.
 * Types that are not among the `known` come as `unknown`.
 */
export function decode(text: string, known: KnownTypes = BUILTIN): Received[] {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    return [rejected('INVALID_JSON', 'not JSON')];
  }
  return Array.isArray(frame) ? frame.map((item) => received(item, known)) : [received(frame, known)];
}

/**
 * Writes a client's frame, of the fields that it has by its type and no others. Throws {@link RivuletError} with
 * the code and the field that the router would name.
 */
export function encode(frame: ClientFrame | CommandFrame): string {
  // Not everyone who calls this has a compiler.
  const fields: unknown = frame;
  if (!isObject(fields)) throw new RivuletError('INVALID_MESSAGE', 'a message is one JSON object');
  const id = optional(fields, 'id', isString, 'a string');
  if (id !== undefined && [...id].length > MAX_ID_LENGTH) {
    throw new RivuletError('TOO_LARGE', `\`id\` has at most ${MAX_ID_LENGTH} characters`, 'id');
  }
  const type = required(fields, 'type', isString, 'a string');
  return JSON.stringify({ type, id, ...body(type, fields) });
}

function body(type: string, fields: Fields): Fields {
  switch (type) {
    case 'subscribe':
    case 'unsubscribe':
      return { events: patterns(required(fields, 'events', isStrings, 'an array of strings')) };
    case 'resume': {
      const stream = required(fields, 'stream', isString, 'a string');
      const seq = required(fields, 'seq', isPosition, 'a whole number from 0 to 2^53 - 1');
      const events = optional(fields, 'events', isStrings, 'an array of strings');
      return { stream, seq, events: events && patterns(events) };
    }
    case 'refresh_token':
      return { token: required(fields, 'token', isString, 'a string') };
    case 'ping':
      return {};
    default:
      return { data: fields.data ?? undefined };
  }
}

function patterns(texts: string[]): string[] {
  return texts.map((text, index) => {
    try {
      return new Pattern(text).text;
    } catch (error) {
      if (!(error instanceof InvalidPattern)) throw error;
      throw new RivuletError(error.code, error.message, `events[${index}]`);
    }
  });
}

function received(frame: unknown, known: KnownTypes): Received {
  if (!isObject(frame)) return rejected('INVALID_MESSAGE', 'not an object');
  const { type, data } = frame;
  if (!isString(type)) return notOf('type');
  const isFrame = serverFrames.has(type);
  const isKnown = known.has(type);
  for (const name of isFrame ? ['id'] : ['seq', 'time']) {
    if (frame[name] === null) delete frame[name];
    else if (name in frame && !(name === 'seq' ? isPosition : isString)(frame[name])) return notOf(name);
  }
  // A reply is whatever a backend answered.
  if (type === 'reply' ? data === undefined : !isObject(data)) return notOf('data');
  if (type !== 'reply' && (isFrame || isKnown)) {
    const fields = data as Fields;
    const optional = known.get(type);
    for (const name in fields)
      if (fields[name] === null && (!optional || optional.includes(name))) delete fields[name];
    // The cursor moves by these: what is no position must not become one.
    const moves = type === 'gap' || type === 'resumed';
    for (const name of isFrame ? ['seq', 'from_seq', 'to_seq'] : [])
      if (name in fields ? !isPosition(fields[name]) : moves && name !== 'seq') return notOf(`data.${name}`);
    if (type === 'gap' && !isString(fields.stream)) return notOf('data.stream');
  }
  if (isFrame) return { kind: 'frame', frame: frame as unknown as ServerFrame };
  return { kind: isKnown ? 'event' : 'unknown', event: frame } as unknown as Received;
}

function notOf(field: string): Received {
  return rejected('INVALID_MESSAGE', `\`${field}\` is missing or wrong`, field);
}

function rejected(...of: ConstructorParameters<typeof RivuletError>): Received {
  return { kind: 'rejected', error: new RivuletError(...of) };
}

type Fields = Record<string, unknown>;

function required<T>(fields: Fields, name: string, is: (value: unknown) => value is T, kind: string): T {
  const value = optional(fields, name, is, kind);
  if (value === undefined) {
    throw new RivuletError('INVALID_MESSAGE', `\`${name}\` is missing: it is ${kind}`, name);
  }
  return value;
}

/** A field that may be absent, or null. */
function optional<T>(
  fields: Fields,
  name: string,
  is: (value: unknown) => value is T,
  kind: string,
): T | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined || is(value)) return value;
  throw new RivuletError('INVALID_MESSAGE', `\`${name}\` is of the wrong kind: it is ${kind}`, name);
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a value is text that has a form in UTF-8. */
function isString(value: unknown): value is string {
  return typeof value === 'string' && !/\p{Surrogate}/u.test(value);
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(isString);
}

/** Whether a value is a sequence of the stream: a whole number from 0 to 2^53 - 1. */
function isPosition(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
