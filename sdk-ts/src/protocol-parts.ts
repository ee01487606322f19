/** `rivulet-client/protocol`: the protocol without a socket, for what builds on frames, patterns or user ids alone. */

export { InvalidPattern, InvalidUserId, RivuletError } from './errors.js';
export type * from './generated.js';
export { CLOSE_CODES, EVENT_TYPES, SERVER_FRAMES } from './generated.js';
export * from './pattern.js';
export * from './protocol.js';
export * from './subject.js';
