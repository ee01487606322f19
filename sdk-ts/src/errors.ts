/**
 * What goes wrong, each kind with a name that programs can ask for.
 */

import type { ErrorBody, ErrorCode } from './generated.js';

/**
 * What only a client can say: `QUEUE_FULL` (too many commands wait for their answer), `LAGGED` (an iterator was
 * read slower than its events came), `CLOSED` (the client, or its connection for good).
 */
export type ClientErrorCode = 'QUEUE_FULL' | 'LAGGED' | 'CLOSED';

/** The error that all others of this package are. */
export class RivuletError extends Error {
  override readonly name: string = 'RivuletError';
  /** After how many seconds trying again may help. */
  readonly retryAfter: number | undefined;

  constructor(
    /** One of the router's codes, of the client's own, or a backend's. */
    readonly code: ErrorCode | ClientErrorCode | (string & {}),
    message: string,
    /** The field at fault, as a path such as `data.content` or `events[2]`. */
    readonly field?: string,
    /** All that the router or a backend said, with fields of its own such as `blob_id`. */
    readonly body?: ErrorBody,
  ) {
    super(message);
    this.retryAfter = body?.retry_after;
  }
}

/** What an `error` frame says, as an error. */
export const failure = (body: ErrorBody): RivuletError =>
  new RivuletError(body.code, body.message, body.field, body);

/** An iterator ended because it was read slower than its events came. What was queued came before this. */
export class LagError extends RivuletError {
  override readonly name = 'LagError';

  constructor(
    /** The last sequence that the iterator was given; absent where its events have none. */
    readonly fromSeq: number | undefined,
  ) {
    super('LAGGED', `iterator full after ${fromSeq}`);
  }
}

/** A text is not a pattern. */
export class InvalidPattern extends RivuletError {
  override readonly name = 'InvalidPattern';

  constructor(
    text: string,
    /** Why, for programs. */
    readonly reason:
      | 'empty_token'
      | 'too_many_tokens'
      | 'too_long'
      | 'rest_before_end'
      | 'wildcard_in_token'
      | 'character',
  ) {
    super('INVALID_PATTERN', `\`${text}\` is no pattern: ${reason}`);
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
