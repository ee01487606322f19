/**
 * What goes wrong, each kind with a name that programs can ask for.
 *
 * The messages are those of the router, so that a fault reads the same wherever it is found.
 */

import type { ErrorCode } from './generated.js';

/** The error that all others of this package are. */
export class RivuletError extends Error {
  override readonly name: string = 'RivuletError';

  constructor(
    /** One of the router's codes. */
    readonly code: ErrorCode,
    message: string,
    /** The field at fault, as a path such as `data.content` or `events[2]`. */
    readonly field?: string,
  ) {
    super(message);
  }
}

const PATTERN_FAULTS = {
  empty_token: 'a pattern has no empty tokens',
  too_many_tokens: 'a pattern has at most 8 tokens',
  too_long: 'a pattern has at most 128 characters',
  rest_before_end: '`>` stands only at the end',
  wildcard_in_token: '`*` and `>` stand alone in their token: use blob.* or blob.>',
  character: 'tokens are of A-Z a-z 0-9 _ -',
};

/** A text is not a pattern. */
export class InvalidPattern extends RivuletError {
  override readonly name = 'InvalidPattern';

  constructor(
    /** Why, for programs; the message says it for people. */
    readonly reason: keyof typeof PATTERN_FAULTS,
  ) {
    super('INVALID_PATTERN', PATTERN_FAULTS[reason]);
  }
}

const USER_ID_FAULTS = {
  empty: 'a user id is not empty',
  too_long: 'a user id has at most 128 bytes',
  escape: 'an escaped user id is of A-Z a-z 0-9 _ - with every other byte as =XX',
  not_utf8: 'a user id is UTF-8',
};

/** A text is not a user id, or not an escaped one. */
export class InvalidUserId extends RivuletError {
  override readonly name = 'InvalidUserId';

  constructor(
    /** Why, for programs; the message says it for people. */
    readonly reason: keyof typeof USER_ID_FAULTS,
  ) {
    super('INVALID_MESSAGE', USER_ID_FAULTS[reason]);
  }
}
