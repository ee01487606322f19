/** Runs every conformance vector; one that is a known gap must differ. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidPattern, InvalidUserId, RivuletError } from '../src/errors.js';
import { Pattern } from '../src/pattern.js';
import { decode, encode, type Received } from '../src/protocol.js';
import { escapeUserId, unescapeUserId } from '../src/subject.js';
import {
  type ClientFrameCase,
  type EventCase,
  knownGaps,
  type PatternCase,
  type ServerFrameCase,
  type UserIdCase,
  vectors,
} from './vectors.js';

function run<Case extends { name?: string }>(file: string, least: number, check: (of: Case) => void): void {
  const cases = vectors<Case>(file);
  const gaps = knownGaps('typescript', file);
  test(`${file} is whole`, () => {
    assert.ok(cases.length >= least, `${cases.length} cases`);
    for (const gap of gaps) assert.ok(cases.some((of) => of.name === gap));
  });
  for (const of of cases) {
    const name = of.name ?? JSON.stringify(of);
    test(`${file}: ${name}`, () => {
      if (gaps.has(name)) {
        assert.throws(
          () => check(of),
          assert.AssertionError,
          'no gap any more: take it from known-gaps.json',
        );
      } else {
        check(of);
      }
    });
  }
}

function outcome(received: Received): string {
  return received.kind === 'rejected' ? 'reject' : received.kind;
}

/** The error that something throws, and nothing but one of this package's. */
function refusal<Kind extends RivuletError>(kind: new (...of: never[]) => Kind, act: () => unknown): Kind {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof kind, `threw ${error}`);
    return error;
  }
  return assert.fail('nothing was thrown');
}

run<EventCase>('events.json', 110, (of) => {
  const outcomes = decode(of.wire).map(outcome);
  assert.deepEqual(outcomes, [of.expect === 'ok' ? 'event' : of.expect]);
});

run<ServerFrameCase>('server-frames.json', 80, (of) => {
  assert.deepEqual(decode(of.wire).map(outcome), of.expect);
});

run<ClientFrameCase>('client-frames.json', 70, (of) => {
  let frame: Parameters<typeof encode>[0];
  try {
    frame = JSON.parse(of.wire);
  } catch {
    // A gap, as an SDK writes text and never reads a client's.
    return assert.fail('no value has this fault');
  }
  if (of.expect === 'ok') {
    assert.deepEqual(JSON.parse(encode(frame)), JSON.parse(of.canonical ?? ''));
  } else {
    const error = refusal(RivuletError, () => encode(frame));
    assert.deepEqual([error.code, error.field], [of.code, of.field]);
  }
});

run<PatternCase & { name?: string }>('patterns.json', 100, (of) => {
  if (of.valid === false) {
    assert.equal(refusal(InvalidPattern, () => new Pattern(of.pattern)).reason, of.reason);
    return;
  }
  const pattern = new Pattern(of.pattern);
  assert.equal(pattern.text, of.pattern);
  if (of.within !== undefined) {
    assert.equal(pattern.within(new Pattern(of.within)), of.is_within);
  } else if (of.type !== undefined) {
    assert.equal(pattern.matches(of.type), of.matches);
  } else {
    assert.equal(of.valid, true);
  }
});

run<UserIdCase & { name?: string }>('user-ids.json', 80, (of) => {
  if (of.id !== undefined && of.token !== undefined) {
    assert.equal(escapeUserId(of.id), of.token);
    assert.equal(unescapeUserId(of.token), of.id);
  } else {
    const { id, token = '' } = of;
    const error = refusal(InvalidUserId, () => (id === undefined ? unescapeUserId(token) : escapeUserId(id)));
    assert.equal(error.reason, of.reason);
  }
});
