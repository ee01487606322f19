/** The public list of the package. What builds on frames, patterns or user ids alone finds them in `./protocol`. */

export { type Client, type ClientOptions, type CursorStore, createClient } from './client.js';
export type { CommandOptions } from './commands.js';
export type { Socket, SocketConstructor } from './connection.js';
export { type ClientErrorCode, InvalidPattern, LagError, RivuletError } from './errors.js';
export type * from './generated.js';
export { EVENT_TYPES } from './generated.js';
export type { Cursor, State } from './link.js';
export type { UnknownEvent } from './protocol.js';
export type {
  AnyFamily,
  Calls,
  CommandsOf,
  EventFor,
  EventsByPattern,
  EventsOf,
  Family,
  PatternFor,
  ReplyOf,
  RequestOf,
} from './types.js';
