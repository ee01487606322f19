/** The client against a real router and nats-server. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  type Client,
  type ClientOptions,
  type Cursor,
  createClient,
  LagError,
  RivuletError,
  type SocketConstructor,
} from '../../../sdk-ts/dist/index.js';
import { blob, PATIENCE, Rig, type Router, token, until } from './rig.ts';

/** For what waits for a promise; all else gives up by itself before. */
const LIMIT = { timeout: 3 * PATIENCE };

let rig: Rig;
let router: Router;
before(async () => {
  rig = await Rig.start();
  router = await rig.router();
  rig.answer('create_blob', ({ content }) =>
    content === ''
      ? { error: { code: 'EMPTY', message: 'no content', field: 'data.content', blob_id: 'none' } }
      : { data: { blob_id: content } },
  );
});
after(() => rig[Symbol.asyncDispose]());

/** A WebSocket that keeps what a client sends and where it connects. */
function recording(): {
  sent: { type: string; events?: string[] }[];
  urls: string[];
  WebSocket: SocketConstructor;
} {
  const sent: { type: string; events?: string[] }[] = [];
  const urls: string[] = [];
  class Recording extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      urls.push(url);
    }
    override send(text: string) {
      sent.push(JSON.parse(text));
      super.send(text);
    }
  }
  return { sent, urls, WebSocket: Recording as unknown as SocketConstructor };
}

/** A client that is closed with its test, and whose faults fail it; but for the ends of connections, which tests bring about. */
async function withClient(
  options: Partial<ClientOptions> & { user: string; faults?: unknown[] },
  body: (client: Client) => Promise<void>,
): Promise<void> {
  const { user, faults, ...rest } = options;
  const client = createClient({ url: router.url, token: token(user), ...rest });
  const unexpected: unknown[] = [];
  client.onError((fault) => {
    if ((fault as RivuletError).code !== 'CLOSED') (faults ?? unexpected).push(fault);
  });
  try {
    await body(client);
  } finally {
    client.close();
  }
  assert.deepEqual(unexpected, []);
}

const connected = (client: Client) => until('connected', () => client.state === 'connected');

test('one event reaches each handler once, whatever patterns cover it', LIMIT, async () => {
  const { WebSocket, sent, urls } = recording();
  await withClient({ user: 'ada', WebSocket }, async (client) => {
    const seen: string[] = [];
    client.on('blob.*', (event) => void seen.push(`wide ${event.data.user_id}`));
    client.on(['blob.created', 'blob.>'], (event) => void seen.push(`list ${event.type}`));
    const off = client.on('blob.created', (event) => void seen.push(`narrow ${event.data.blob_id}`));
    await connected(client);
    // One server-side subscription, in the handshake.
    const [url] = urls;
    assert.equal(new URL(url ?? '').searchParams.get('events'), 'blob.>');
    await rig.publish('blob.created', blob(1), 'ada');
    await rig.publish('blob.created', blob(1), 'grace');
    await until('three', () => seen.length >= 3);
    off();
    client.on('book.created', () => void seen.push('book'));
    await until('subscribed', () => sent.some(({ type }) => type === 'subscribe'));
    await rig.publish('blob.created', blob(2), 'ada');
    await rig.publish('book.created', { book_id: 'b' }, 'ada');
    await until('a book', () => seen.includes('book'));
    assert.deepEqual(seen, [
      'wide ada',
      'list blob.created',
      'narrow blob-1',
      'wide ada',
      'list blob.created',
      'book',
    ]);
    assert.deepEqual(
      sent.map(({ type, events }) => [type, events]),
      [['subscribe', ['book.created']]],
    );
  });
});

test('a wide pattern gives way to the narrow ones that it covered', LIMIT, async () => {
  const { WebSocket, sent } = recording();
  await withClient({ user: 'wide', WebSocket }, async (client) => {
    const off = client.on('blob.*', () => {});
    const seen: unknown[] = [];
    client.on('blob.created', (event) => void seen.push(event.data.blob_id));
    await connected(client);
    off();
    await until('unsubscribed', () => sent.some(({ type }) => type === 'unsubscribe'));
    await rig.publish('blob.created', blob(1), 'wide');
    await until('the event', () => seen.length === 1);
    assert.deepEqual(
      sent.map(({ type, events }) => [type, events]),
      [
        ['subscribe', ['blob.created']],
        ['unsubscribe', ['blob.*']],
      ],
    );
  });
});

test('an iterator gives events and ends with its signal, its loop or its client', LIMIT, async () => {
  await withClient({ user: 'loop' }, async (client) => {
    const ends = new AbortController();
    const aborted = client.events('blob.*', { signal: ends.signal });
    const closed = client.events('*');
    const seen: string[] = [];
    const left = (async () => {
      for await (const event of client.events(['blob.*', 'book.*'])) {
        seen.push(event.type);
        if (event.type === 'book.created') break;
      }
    })();
    await connected(client);
    await rig.publish('blob.created', blob(1), 'loop');
    await rig.publish('book.created', { book_id: 'b' }, 'loop');
    await left;
    assert.deepEqual(seen, ['blob.created', 'book.created']);
    assert.equal((await aborted.next()).value?.type, 'blob.created');
    ends.abort();
    assert.equal((await aborted.next()).done, true);
    assert.equal((await closed.next()).value?.type, 'blob.created');
    client.close();
    assert.equal((await closed.next()).value?.type, 'book.created');
    assert.equal((await closed.next()).done, true);
  });
});

test('an iterator that is not read fails after what it has', LIMIT, async () => {
  await withClient({ user: 'lag' }, async (client) => {
    const slow = client.events('blob.*', { maxQueue: 2 });
    let count = 0;
    client.on('blob.*', () => void count++);
    await connected(client);
    const seqs: number[] = [];
    for (let number = 0; number < 4; number++)
      seqs.push(await rig.publish('blob.created', blob(number), 'lag'));
    await until('all are here', () => count === 4);
    assert.equal((await slow.next()).value?.data.blob_id, 'blob-0');
    assert.equal((await slow.next()).value?.data.blob_id, 'blob-1');
    await assert.rejects(slow.next(), (error) => error instanceof LagError && error.fromSeq === seqs[1]);
    assert.equal((await slow.next()).done, true);
  });
});

test('a handler that throws or rejects is reported and disturbs nobody', LIMIT, async () => {
  const faults: unknown[] = [];
  await withClient({ user: 'throws', faults }, async (client) => {
    let count = 0;
    client.on('blob.*', () => {
      throw new Error('thrown');
    });
    client.on('blob.*', async () => {
      throw new Error('rejected');
    });
    client.on('blob.*', () => void count++);
    await connected(client);
    await rig.publish('blob.created', blob(1), 'throws');
    await rig.publish('blob.created', blob(2), 'throws');
    await until('four faults', () => faults.length === 4);
    assert.equal(count, 2);
    assert.deepEqual(faults.map((fault) => (fault as Error).message).sort(), [
      'rejected',
      'rejected',
      'thrown',
      'thrown',
    ]);
  });
});

test('an unknown type goes to onUnknown and to no handler', LIMIT, async () => {
  await withClient({ user: 'unknown' }, async (client) => {
    const handled: string[] = [];
    const unknown: unknown[] = [];
    client.on('*', (event) => void handled.push(event.type));
    client.onUnknown((event) => unknown.push([event.type, event.data]));
    await connected(client);
    await rig.publish('blob.painted', { colour: 'blue' }, 'unknown');
    await rig.publish('blob.created', blob(1), 'unknown');
    await until('the known one', () => handled.length === 1);
    assert.deepEqual(unknown, [['blob.painted', { colour: 'blue' }]]);
    assert.deepEqual(handled, ['blob.created']);
  });
});

test('a family of one’s own is known by its list', LIMIT, async () => {
  const client = createClient({
    url: router.url,
    token: token('family'),
    families: [
      { eventTypes: { 'blob.painted': ['by'] } } as import('../../../sdk-ts/dist/index.js').Family<
        { 'blob.painted': { colour: string | null; by?: string } },
        object
      >,
    ],
  });
  try {
    const seen: unknown[] = [];
    client.on('blob.painted', (event) => void seen.push(event.data));
    client.onUnknown(() => assert.fail());
    await until('connected', () => client.state === 'connected');
    // Null is read as absent where a field may be absent, and stays where it may not.
    await rig.publish('blob.painted', { colour: null, by: null }, 'family');
    await until('seen', () => seen.length === 1);
    assert.deepEqual(seen, [{ colour: null }]);
  } finally {
    client.close();
  }
});

test('commands are typed in and out, and refusals carry what the backend said', LIMIT, async () => {
  await withClient({ user: 'asks' }, async (client) => {
    const reply = await client.command.createBlob({ content: 'text', schema_id: 'text' });
    assert.equal(reply.blob_id, 'text');
    assert.deepEqual(await client.call('create_blob', { content: 'x', schema_id: 'text' }), { blob_id: 'x' });
    await assert.rejects(client.command.createBlob({ content: '', schema_id: 'text' }), (error) => {
      assert(error instanceof RivuletError);
      assert.deepEqual([error.code, error.message, error.field], ['EMPTY', 'no content', 'data.content']);
      assert.equal(error.body?.blob_id, 'none');
      return true;
    });
    await assert.rejects(client.command.processBlob({ blob_id: 'b', processor_id: 'p' }), {
      code: 'BACKEND_UNAVAILABLE',
    });
    // @ts-expect-error: no such field
    await assert.rejects(client.command.createBlob({ contents: 1 }), { code: 'INVALID_MESSAGE' });
    // Nobody means a command by these.
    assert.equal(JSON.stringify(client.command), '{}');
    assert.equal(await client.command, client.command);
  });
});

test('a command ends with its signal, and in OUTCOME_UNKNOWN when no answer comes', LIMIT, async () => {
  const asked: unknown[] = [];
  rig.answer('process_blob', ({ blob_id }) => void asked.push(blob_id));
  await withClient({ user: 'silent' }, async (client) => {
    const gone = new AbortController();
    const call = (blob_id: string, options: object) =>
      client.command.processBlob({ blob_id, processor_id: 'p' }, options);
    const waiting = call('aborted', { signal: gone.signal });
    await until('asked', () => asked.length === 1);
    gone.abort(new Error('enough'));
    await assert.rejects(waiting, { message: 'enough' });
    await assert.rejects(call('never', { signal: AbortSignal.abort(new Error('before')) }), {
      message: 'before',
    });
    await assert.rejects(call('late', { deadline: 300 }), { code: 'OUTCOME_UNKNOWN' });
    assert.deepEqual(asked, ['aborted', 'late']);
    const open = call('closed', {});
    client.close();
    await assert.rejects(open, { code: 'CLOSED' });
    await assert.rejects(call('after', {}), { code: 'CLOSED' });
  });
});

test('more commands than the router takes at once are all answered', LIMIT, async () => {
  const strict = await rig.router({ RIVULET_LIMITS_OTHER_BURST: '5', RIVULET_LIMITS_OTHER_PER_SECOND: '50' });
  await withClient({ user: 'eager', url: strict.url }, async (client) => {
    const all = Array.from({ length: 40 }, (_, number) =>
      client.command.createBlob({ content: `c${number}`, schema_id: 'text' }),
    );
    assert.deepEqual(
      (await Promise.all(all)).map(({ blob_id }) => blob_id),
      all.map((_, number) => `c${number}`),
    );
    assert.equal(client.state, 'connected');
  });
});

test('commands wait for a connection, up to a bound and a deadline', LIMIT, async () => {
  const balancer = await rig.balancer();
  await withClient({ user: 'offline', url: balancer.url, maxCommands: 2 }, async (client) => {
    const create = (content: string, deadline?: number) =>
      client.command.createBlob({ content, schema_id: 'text' }, deadline === undefined ? {} : { deadline });
    await until('refused', () => client.state === 'waiting');
    await assert.rejects(create('late', 50), { code: 'COMMAND_TIMEOUT' });
    const [one, two] = [create('one', PATIENCE), create('two', PATIENCE)];
    await assert.rejects(create('three'), { code: 'QUEUE_FULL' });
    balancer.to = router.port;
    assert.deepEqual(await Promise.all([one, two]), [{ blob_id: 'one' }, { blob_id: 'two' }]);
  });
});

test('an answer that was cut off comes after the reconnect, and the backend worked once', LIMIT, async () => {
  const balancer = await rig.balancer();
  balancer.to = router.port;
  const { promise: mayAnswer, resolve: answer } = Promise.withResolvers<void>();
  let asked = 0;
  rig.answer('process_blob', async ({ blob_id }) => {
    if (blob_id !== 'cut') return;
    asked++;
    await mayAnswer;
    return { data: { blob_id: 'cut', processor_id: 'p' } };
  });
  await withClient({ user: 'cut', url: balancer.url }, async (client) => {
    const reply = client.command.processBlob({ blob_id: 'cut', processor_id: 'p' }, { deadline: PATIENCE });
    await until('asked', () => asked === 1);
    balancer.cut();
    await until('cut', () => client.state !== 'connected');
    await connected(client);
    answer();
    assert.equal((await reply).blob_id, 'cut');
    assert.equal(asked, 1);
  });
});

test('a fresh token is sent before the old one ends, and the session goes on', LIMIT, async () => {
  const { WebSocket, sent, urls } = recording();
  let asked = 0;
  const tokens = async () => token('refresh', asked++ === 0 ? 5 : 3600);
  await withClient({ user: 'refresh', token: tokens, WebSocket }, async (client) => {
    await connected(client);
    await until('refreshed', () => sent.some(({ type }) => type === 'refresh_token'));
    let count = 0;
    client.on('blob.created', () => void count++);
    await until('subscribed', () => sent.some(({ type }) => type === 'subscribe'));
    await rig.publish('blob.created', blob(1), 'refresh');
    await until('an event', () => count === 1);
    assert.deepEqual([asked, urls.length], [2, 1]);
  });
});

test('a token that is refused is asked for again; a text is not', LIMIT, async () => {
  const refused: unknown[] = [];
  let asked = 0;
  const later = () => (asked++ < 2 ? 'a.b.c' : token('late'));
  await withClient({ user: 'late', token: later, faults: refused }, async (client) => {
    await connected(client);
    assert.equal(asked, 3);
  });
  await withClient({ user: 'bad', token: 'a.b.c', faults: refused }, async (client) => {
    await until('stopped', () => client.state === 'stopped');
    assert.equal(client.error?.code, 'UNAUTHORIZED');
  });
  // The one at its second refusal, the other as it stops.
  assert.deepEqual(
    refused.map((fault) => (fault as RivuletError).code),
    ['UNAUTHORIZED', 'UNAUTHORIZED'],
  );
  const faults: unknown[] = [];
  let tries = 0;
  const failing = () => {
    if (tries++ === 0) throw new Error('no network');
    return token('late');
  };
  await withClient({ user: 'late', token: failing, faults }, async (client) => {
    await connected(client);
    assert.deepEqual(faults.map(String), ['Error: no network']);
  });
});

test('a drained node is left for another, and nothing is lost', LIMIT, async () => {
  const [one, two] = [await rig.router(), await rig.router()];
  const balancer = await rig.balancer();
  balancer.to = one.port;
  await withClient({ user: 'drained', url: balancer.url }, async (client) => {
    const seen: unknown[] = [];
    const states: string[] = [];
    client.on('blob.created', (event) => void seen.push(event.data.blob_id));
    await connected(client);
    client.onState((state) => states.push(state));
    await rig.publish('blob.created', blob(0), 'drained');
    balancer.to = two.port;
    const stopped = one.stop();
    for (let number = 1; number < 50; number++) await rig.publish('blob.created', blob(number), 'drained');
    await stopped;
    await until('all', () => seen.length >= 50);
    assert.deepEqual(
      seen,
      Array.from({ length: 50 }, (_, number) => `blob-${number}`),
    );
    // By itself when it was told to, or by the router's close, whichever came first; all may have come before either.
    await until('at the other node', () => states.join().endsWith('connecting,connected'));
  });
});

test('a gap is told before the next event', LIMIT, async () => {
  const own = await Rig.start();
  try {
    const settings = { RIVULET_HISTORY_MAX_BYTES: '16KiB' };
    const first = await own.router(settings);
    const balancer = await own.balancer();
    balancer.to = first.port;
    await withClient({ user: 'gap', url: balancer.url }, async (client) => {
      const seen: unknown[] = [];
      client.on('blob.created', (event) => void seen.push(event.data.blob_id));
      client.onGap(({ reason, to_seq }) => seen.push([reason, to_seq]));
      await connected(client);
      await own.publish('blob.created', blob(0), 'gap');
      await until('the first', () => seen.length === 1);
      balancer.to = undefined;
      balancer.cut();
      await until('cut', () => client.state !== 'connected');
      let last = 0;
      for (let number = 1; number <= 9; number++)
        last = await own.publish('blob.created', blob(number), 'gap');
      await (await own.nats.jetstreamManager()).streams.purge('RIVULET', { seq: last });
      await first.kill();
      const second = await own.router(settings);
      balancer.to = second.port;
      await until('all', () => seen.length === 3);
      assert.deepEqual(seen, ['blob-0', ['evicted', last - 1], 'blob-9']);
    });
  } finally {
    await own[Symbol.asyncDispose]();
  }
});

test('a stream made anew is a gap, and events of the new one come', LIMIT, async () => {
  const cursorStore = { load: () => ({ stream: 'RIVULET@1', seq: 999_999 }), save: () => {} };
  await withClient({ user: 'epoch', cursorStore }, async (client) => {
    const seen: unknown[] = [];
    client.on('blob.created', (event) => void seen.push(event.data.blob_id));
    client.onGap(({ reason }) => seen.push(reason));
    await until('a gap', () => seen.length > 0);
    await rig.publish('blob.created', blob(1), 'epoch');
    await until('an event', () => seen.length > 1);
    assert.deepEqual(seen, ['epoch_changed', 'blob-1']);
  });
});

test('a handler that is too slow for the router loses nothing', LIMIT, async () => {
  const narrow = await rig.router({ RIVULET_SESSIONS_OUTBOX_EVENTS: '50' });
  await withClient({ user: 'slow', url: narrow.url }, async (client) => {
    const seen: unknown[] = [];
    let ends = 0;
    client.onState((state) => void (state === 'waiting' && ends++));
    client.on('blob.created', (event) => {
      // The whole program stands still, as it does when a page renders for too long.
      const until = performance.now() + 40;
      while (seen.length < 60 && performance.now() < until);
      seen.push(event.data.blob_id);
    });
    await connected(client);
    const big = 'x'.repeat(20_000);
    const all = Array.from({ length: 1500 }, (_, number) =>
      rig.publish('blob.created', { ...blob(number), preview: big }, 'slow'),
    );
    await Promise.all(all);
    await until('all', () => seen.length >= all.length);
    assert.deepEqual(
      seen,
      all.map((_, number) => `blob-${number}`),
    );
    assert(ends > 0, 'the router never had enough of it');
  });
});

test('what keeps a client from its events is told to who asks for nothing, and once', LIMIT, async () => {
  const told: string[] = [];
  const { error } = console;
  console.error = (fault: unknown) => void told.push(String(fault));
  const said = async (url: string, bearer: string) => {
    const before = told.length;
    const client = createClient({ url, token: bearer });
    const states: string[] = [];
    client.onState((state) => states.push(state));
    client.on('blob.*', () => {});
    await until('the end, or three tries', () =>
      ['stopped', 'waiting,connecting,waiting,connecting,waiting'].some((end) => states.join().endsWith(end)),
    );
    client.close();
    return told.slice(before);
  };
  try {
    assert.deepEqual(await said('http://127.0.0.1:1', token('ada')), [
      'RivuletError: http://127.0.0.1:1: closed 1006 ',
    ]);
    const [nowhere, ...more] = await said('nowhere', token('ada'));
    assert.match(nowhere ?? '', /^RivuletError: nowhere: .*URL/);
    assert.deepEqual(more, []);
    assert.deepEqual(await said(router.url, 'no.token.atall'), [
      'RivuletError: the token is malformed: a part of it is not base64url without padding',
    ]);
  } finally {
    console.error = error;
  }
});

test('whose seat is taken stops, and takes it back when asked to', LIMIT, async () => {
  const strict = await rig.router({ RIVULET_LIMITS_DEVICES_PER_USER: '1' });
  await withClient({ user: 'seat', url: strict.url }, async (one) => {
    await connected(one);
    await withClient({ user: 'seat', url: strict.url }, async (two) => {
      await connected(two);
      await until('stopped', () => one.state === 'stopped');
      assert.match(one.error?.message ?? '', /4429/);
      one.reconnect();
      await connected(one);
      await until('stopped', () => two.state === 'stopped');
    });
  });
});

test('a pattern that the token does not permit is refused alone', LIMIT, async () => {
  const faults: unknown[] = [];
  const permitted = token('limited', 3600, { events: ['blob.*'] });
  const cursors: Cursor[] = [];
  await withClient({ user: 'limited', token: permitted, faults }, async (client) => {
    client.on('blob.*', () => {});
    await connected(client);
    if (client.cursor) cursors.push(client.cursor);
  });
  for (let number = 0; number < 3; number++) await rig.publish('blob.created', blob(number), 'limited');
  const cursorStore = { load: () => cursors[0], save: () => {} };
  await withClient({ user: 'limited', token: permitted, cursorStore, faults }, async (client) => {
    const seen: unknown[] = [];
    client.on(
      ['book.*', 'blob.created'],
      (event) => void ('blob_id' in event.data && seen.push(event.data.blob_id)),
    );
    const refused = client.events('conversation.*');
    await assert.rejects(refused.next(), { code: 'FORBIDDEN' });
    await until('what was missed', () => seen.length === 3);
    // The same on a session that stands.
    await assert.rejects(client.events('processor.*').next(), { code: 'FORBIDDEN' });
    assert.deepEqual(seen, ['blob-0', 'blob-1', 'blob-2']);
    assert.deepEqual(
      faults.map((fault) => (fault as RivuletError).code),
      ['FORBIDDEN'],
    );
  });
});

test('a cursor that was kept is gone on from', LIMIT, async () => {
  let kept: Cursor | undefined;
  const save = (cursor: Cursor) => {
    kept = cursor;
  };
  const cursorStore = { load: async () => kept, save };
  const seen: unknown[] = [];
  for (const [first, last] of [
    [0, 3],
    [3, 6],
  ] as const) {
    await withClient({ user: 'keeps', cursorStore }, async (client) => {
      client.on('blob.created', (event) => void seen.push(event.data.blob_id));
      await connected(client);
      if (last === 3)
        for (let number = first; number < last; number++)
          await rig.publish('blob.created', blob(number), 'keeps');
      await until('all', () => seen.length === last);
    });
    if (last === 3)
      for (let number = 3; number < 6; number++) await rig.publish('blob.created', blob(number), 'keeps');
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 6 }, (_, number) => `blob-${number}`),
  );
});

test('an idle client’s cursor moves with the heartbeats', LIMIT, async () => {
  const quick = await rig.router({ RIVULET_SESSIONS_HEARTBEAT: '1s' });
  await withClient({ user: 'idle', url: quick.url }, async (client) => {
    client.on('blob.*', () => {});
    await connected(client);
    const seq = await rig.publish('blob.created', blob(1), 'somebody-else');
    await until('moved', () => (client.cursor?.seq ?? 0) >= seq);
  });
});

test('a silent connection is given up and replaced', LIMIT, async () => {
  const quick = await rig.router({ RIVULET_SESSIONS_HEARTBEAT: '1s' });
  const sockets: WebSocket[] = [];
  class Deaf extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols);
      sockets.push(this);
    }
  }
  const WebSocketLike = Deaf as unknown as SocketConstructor;
  await withClient({ user: 'deaf', url: quick.url, WebSocket: WebSocketLike }, async (client) => {
    const seen: unknown[] = [];
    client.on('blob.created', (event) => void seen.push(event.data.blob_id));
    await connected(client);
    // As of a network that went without a word.
    const [first] = sockets;
    assert(first);
    const hear = first.onmessage;
    first.onmessage = null;
    assert(hear);
    await rig.publish('blob.created', blob(1), 'deaf');
    await until('another connection', () => sockets.length === 2);
    await until('the event', () => seen.length === 1);
  });
});

test('bad input is refused in plain words', () => {
  const client = createClient({ url: router.url, token: token('bad') });
  try {
    // @ts-expect-error: not a pattern
    assert.throws(() => client.on('blob.*d', () => {}), {
      code: 'INVALID_PATTERN',
      reason: 'wildcard_in_token',
    });
    // @ts-expect-error: not an event
    assert.throws(() => client.events('blob created'), {
      message: '`blob created` is no pattern: character',
    });
  } finally {
    client.close();
  }
});
