/** What a client does with what a router says, where a real one would not say it on demand. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { ceiling, delay } from '../src/backoff.js';
import { type Client, type ClientOptions, createClient } from '../src/client.js';
import type { Socket } from '../src/connection.js';
import { CLOSE_CODES } from '../src/generated.js';

const sockets: Fake[] = [];

/** A socket whose other end is the test. */
class Fake implements Socket {
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  onerror: Socket['onerror'] = null;
  readonly sent: { type: string; events?: string[]; id?: string }[] = [];
  readonly query: URLSearchParams;
  closed = false;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    this.query = new URL(url).searchParams;
    sockets.push(this);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.closed = true;
  }

  say(...frames: object[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  connected(data: object = {}): void {
    const events = this.query.get('events')?.split(',') ?? [];
    const heartbeat_ms = 25_000;
    const limits = { max_message_bytes: 200, max_patterns: 100 };
    this.say({ type: 'connected', data: { events, stream: 'S@1', seq: 10, heartbeat_ms, limits, ...data } });
  }

  end(code: number, reason = ''): void {
    this.onclose?.({ code, reason });
  }
}

const event = (seq: number) => ({ type: 'book.created', seq, data: { book_id: `b${seq}` } });
const last = () => sockets.at(-1) as Fake;
/** Lets everything run that does not wait for time. */
const settle = async () => {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
};

let client: Client;
const seen: unknown[] = [];
async function start(options: Partial<ClientOptions> = {}): Promise<void> {
  client = createClient({ url: 'https://host', token: 'ada', WebSocket: Fake, ...options });
  client.on('book.*', ({ seq }) => void seen.push(seq));
  client.onGap(({ to_seq }) => seen.push(`gap to ${to_seq}`));
  client.onError((fault) => seen.push(String(fault)));
  await settle();
}

beforeEach(() => {
  sockets.length = seen.length = 0;
  mock.timers.enable({ apis: ['setTimeout'] });
  mock.method(Math, 'random', () => 0.5);
});
afterEach(() => {
  client.close();
  mock.restoreAll();
  mock.timers.reset();
});

test('one round trip carries the token, patterns, device and cursor', async () => {
  const cursorStore = { load: () => ({ stream: 'S@1', seq: 7 }), save: () => {} };
  await start({ url: 'https://host/', cursorStore, device: 'tab' });
  const { url, protocols, query } = last();
  assert(url.startsWith('wss://host/api/v1/ws?'), url);
  assert.deepEqual(protocols, ['rivulet.v1', 'bearer.ada']);
  assert.deepEqual(Object.fromEntries(query), { device: 'tab', stream: 'S@1', seq: '7', events: 'book.*' });
});

test('a path and a query of the address stay, and a token no header can hold goes by the query', async () => {
  await start({ url: 'ws://host:1/live?tenant=a', token: 'a da' });
  const { url, protocols, query } = last();
  assert(url.startsWith('ws://host:1/live?tenant=a&'), url);
  assert.deepEqual([protocols, query.get('token')], [['rivulet.v1'], 'a da']);
});

test('what was seen is dropped, and what has no sequence never is', async () => {
  await start();
  last().connected();
  last().say(
    event(11),
    event(12),
    event(12),
    event(11),
    { type: 'book.created', data: { book_id: 'b' } },
    event(13),
  );
  assert.deepEqual(seen, [11, 12, undefined, 13]);
});

test('the cursor moves by what tells that all was sent, and back only by a gap', async () => {
  await start();
  const at = () => client.cursor?.seq;
  last().connected();
  assert.equal(at(), 10);
  last().say({ type: 'heartbeat', data: { seq: 20 } });
  assert.equal(at(), 20);
  last().say({ type: 'pong', data: { seq: 15 } });
  assert.equal(at(), 20);
  last().say({ type: 'resumed', data: { from_seq: 1, to_seq: 25, complete: true } });
  assert.equal(at(), 25);
  last().say(
    { type: 'gap', data: { stream: 'S@2', from_seq: 25, to_seq: 3, reason: 'epoch_changed' } },
    event(4),
  );
  assert.deepEqual(client.cursor, { stream: 'S@2', seq: 4 });
  assert.deepEqual(seen, ['gap to 3', 4]);
});

test('who resumes is not moved by the head that the node tells', async () => {
  await start();
  last().connected();
  last().say(event(11));
  last().end(1006);
  mock.timers.tick(30_000);
  await settle();
  assert.equal(last().query.get('seq'), '11');
  last().connected({ seq: 99 });
  last().say(event(12));
  assert.deepEqual([seen, client.cursor?.seq], [[11, 12], 12]);
});

test('nothing counts while a pattern of the query is refused', async () => {
  await start({ cursorStore: { load: () => ({ stream: 'S@1', seq: 7 }), save: () => {} } });
  client.on('blob.created', () => {});
  client.reconnect();
  await settle();
  const [, first] = sockets;
  first?.connected({ events: [] });
  first?.say(event(50));
  first?.say({ type: 'error', data: { code: 'FORBIDDEN', message: 'no', field: 'events[1]' } });
  await settle();
  assert.deepEqual(seen, ['RivuletError: no']);
  assert.deepEqual([last().query.get('events'), last().query.get('seq')], ['book.*', '7']);
  last().connected();
  last().say(event(8));
  assert.deepEqual(seen, ['RivuletError: no', 8]);
});

for (const [code, advice] of Object.entries(CLOSE_CODES)) {
  test(`${code}: ${advice}`, async () => {
    await start();
    last().connected();
    last().end(Number(code));
    // A token that is a text can't be another one.
    const stays = advice === 'no' || advice === 'new_token' || advice === 'when_allowed';
    assert.equal(client.state, stays ? 'stopped' : 'waiting');
    mock.timers.tick(1_000_000);
    await settle();
    assert.equal(sockets.length, stays ? 1 : 2);
  });
}

test('a refusal that says when to come again is obeyed', async () => {
  await start();
  last().say({ type: 'error', data: { code: 'RATE_LIMITED', message: 'too many', retry_after: 7 } });
  last().end(4429, '{"retry_after":7}');
  assert.deepEqual([client.state, client.error?.retryAfter], ['waiting', 7]);
  mock.timers.tick(7_249);
  await settle();
  assert.equal(sockets.length, 1);
  mock.timers.tick(1);
  await settle();
  assert.equal(sockets.length, 2);
});

test('delays double to 30 s, with full jitter, and begin anew after a session that stayed', async () => {
  assert.deepEqual([0, 1, 2, 5, 6, 50].map(ceiling), [500, 1000, 2000, 16_000, 30_000, 30_000]);
  mock.method(Math, 'random', () => 1);
  assert.deepEqual([delay(0), delay(9), delay(1, 3)], [500, 30_000, 4000]);
  await start();
  const waits = [];
  for (let tries = 0; tries < 8; tries++) {
    last().connected();
    last().end(4413);
    let wait = 0;
    for (const count = sockets.length; sockets.length === count; wait += 500) {
      mock.timers.tick(500);
      await settle();
    }
    waits.push(wait);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  let now = performance.now();
  mock.method(performance, 'now', () => now);
  last().connected();
  now += 100_000;
  last().end(4413);
  mock.timers.tick(500);
  await settle();
  assert.equal(sockets.length, 10);
});

test('a draining node is left when it says, with the cursor that it tells', async () => {
  await start();
  last().connected();
  last().say({ type: 'draining', data: { reconnect_after_ms: 300, stream: 'S@1', seq: 40 } });
  mock.timers.tick(299);
  await settle();
  assert.equal(sockets.length, 1);
  mock.timers.tick(1);
  await settle();
  assert.deepEqual([sockets.length, sockets[0]?.closed, last().query.get('seq')], [2, true, '40']);
});

test('a broken frame is reported and takes nothing with it', async () => {
  await start();
  last().connected();
  last().onmessage?.({ data: 'no json' });
  last().onmessage?.({ data: `[{"type":"book.created","data":[]},${JSON.stringify(event(11))}]` });
  assert.deepEqual(seen, ['RivuletError: not JSON', 'RivuletError: `data` is missing or wrong', 11]);
});

test('a socket that never says connected is given up', async () => {
  await start();
  const now = performance.now() + 10_000;
  mock.method(performance, 'now', () => now);
  mock.timers.tick(10_001);
  assert.equal(client.state, 'waiting');
  assert.equal(last().closed, true);
});

test('a token’s callback that never ends holds nothing up once the client is closed', async () => {
  let bring: (token: string) => void = () => {};
  await start({ token: () => new Promise((resolve) => (bring = resolve)) });
  client.close();
  bring('late');
  await settle();
  assert.equal(sockets.length, 0);
});

test('a subscription that came too fast is sent again when it may be', async () => {
  await start();
  last().connected();
  client.on('blob.created', () => {});
  await settle();
  last().say({
    type: 'error',
    id: 'patterns',
    data: { code: 'RATE_LIMITED', message: 'slow down', retry_after: 2 },
  });
  assert.equal(last().sent.length, 1);
  mock.timers.tick(2000);
  assert.deepEqual(
    last().sent.map(({ events }) => events),
    [['blob.created'], ['blob.created']],
  );
  assert.deepEqual(seen, []);
});

test('what is refused as too much until its deadline says so, and not that its outcome is unknown', async () => {
  await start();
  last().connected();
  const asked = client.command.createBlob({ content: 'c', schema_id: 's' });
  const { id } = last().sent[0] ?? {};
  // As a backend's own answer is, which the router keeps for whoever asks again.
  const data = { code: 'RATE_LIMITED', message: 'the model is busy', retry_after: 60 };
  last().say({ type: 'error', id, data });
  for (let second = 1; second < 10; second++) {
    mock.timers.tick(1000);
    last().say({ type: 'error', id, data });
  }
  assert.equal(last().sent.length, 10);
  mock.timers.tick(1000);
  await assert.rejects(asked, { code: 'RATE_LIMITED', message: 'the model is busy', retryAfter: 60 });
});

test('what may have been done before it was refused has an unknown outcome', async () => {
  await start();
  last().connected();
  const asked = client.command.createBlob({ content: 'c', schema_id: 's' });
  const { id } = last().sent[0] ?? {};
  client.reconnect();
  await settle();
  last().connected();
  assert.equal(last().sent[0]?.id, id);
  for (let second = 0; second < 10; second++) {
    last().say({ type: 'error', id, data: { code: 'RATE_LIMITED', message: 'slow down', retry_after: 60 } });
    mock.timers.tick(1000);
  }
  await assert.rejects(asked, { code: 'OUTCOME_UNKNOWN' });
});

test('a command that is given up while it waits for the pace is not sent', async () => {
  await start();
  last().connected();
  const gone = new AbortController();
  const create = (options = {}) => client.command.createBlob({ content: 'c', schema_id: 's' }, options);
  const first = create({ signal: gone.signal });
  const { id } = last().sent[0] ?? {};
  last().say({ type: 'error', id, data: { code: 'RATE_LIMITED', message: 'slow down', retry_after: 0.5 } });
  const late = create({ deadline: 100 });
  create().catch(() => {});
  gone.abort(new Error('enough'));
  await assert.rejects(first, { message: 'enough' });
  mock.timers.tick(100);
  await assert.rejects(late, { code: 'COMMAND_TIMEOUT' });
  mock.timers.tick(400);
  assert.equal(last().sent.length, 2);
  assert.notEqual(last().sent[1]?.id, id);
});

test('a command that is too long for the router does not end the session', async () => {
  await start();
  last().connected();
  const create = (content: string) => client.command.createBlob({ content, schema_id: 's' });
  // As bytes, of which each of these has two.
  await assert.rejects(create('é'.repeat(100)), { code: 'TOO_LARGE', message: 'over 200 bytes' });
  create('short').catch(() => {});
  assert.deepEqual([client.state, last().sent.length], ['connected', 1]);
});

test('a new token that permits less is told, and the rest goes on', async () => {
  await start();
  client.on('blob.created', () => {});
  await settle();
  client.reconnect();
  await settle();
  last().connected();
  last().say({ type: 'subscribed', data: { events: ['book.*'], seq: 12 } }, event(13));
  assert.deepEqual(seen, ['RivuletError: the new token does not permit `blob.created`', 13]);
});
