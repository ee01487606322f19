/** What the vectors can't say: values that JSON has no text for, and what is left of a frame that was read. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidUserId, RivuletError } from '../src/errors.js';
import { Pattern } from '../src/pattern.js';
import { decode, encode } from '../src/protocol.js';
import { escapeUserId, unescapeUserId } from '../src/subject.js';

test('null for a field that may be absent is read as absent, and kept where anything may stand', () => {
  const [event, unknown, reply] = decode(
    `[{"type":"book.created","seq":null,"data":{"book_id":"k","title":null}},
      {"type":"acme.made","data":{"by":null}}, {"type":"reply","data":{"by":null}}]`,
  );
  assert.deepEqual(event, { kind: 'event', event: { type: 'book.created', data: { book_id: 'k' } } });
  assert.deepEqual(unknown, { kind: 'unknown', event: { type: 'acme.made', data: { by: null } } });
  assert.deepEqual(reply, { kind: 'frame', frame: { type: 'reply', data: { by: null } } });
});

test('depth breaks nothing', () => {
  const deep = `{"type":"acme.made","data":{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}}`;
  assert.equal(decode(deep).length, 1);
  assert.deepEqual(
    decode('['.repeat(100_000)).map((received) => received.kind),
    ['rejected'],
  );
});

test('a rejected frame names the field at fault', () => {
  const [received] = decode(
    '{"type":"gap","data":{"stream":"S@1","from_seq":1,"to_seq":-1,"reason":"evicted"}}',
  );
  assert.ok(received?.kind === 'rejected');
  assert.equal(received.error.field, 'data.to_seq');
});

test('sequences that JSON has no text for are refused', () => {
  for (const seq of [Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    assert.throws(() => encode({ type: 'resume', stream: 'S@1', seq }), RivuletError);
  }
});

test('half of a surrogate pair is no user id and no pattern', () => {
  assert.throws(() => escapeUserId('\ud800'), InvalidUserId);
  assert.throws(() => unescapeUserId('\ud800'), InvalidUserId);
  assert.throws(() => new Pattern('\ud800'), RivuletError);
});
