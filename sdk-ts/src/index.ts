/** The public list of the package. */

export * from './errors.js';
export type * from './generated.js';
export { CLOSE_CODES, EVENT_TYPES, SERVER_FRAMES } from './generated.js';
export * from './pattern.js';
export * from './protocol.js';
export * from './subject.js';
