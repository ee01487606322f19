/** A node that dies and comes back, a hundred times under load: every event arrives once and in order. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient, type RivuletError } from '../../../sdk-ts/dist/index.js';
import { blob, Rig, token, until } from './rig.ts';

const RESTARTS = Number(process.env.RESTARTS ?? 100);
/** How many publish at a time, each as fast as the stream acknowledges. */
const PUBLISHERS = 4;

test(`nothing is lost over ${RESTARTS} restarts`, async () => {
  const rig = await Rig.start();
  try {
    let router = await rig.router();
    const { port, url } = router;
    const client = createClient({ url, token: token('ada') });
    const faults: unknown[] = [];
    client.onError((fault) => {
      // A node that takes longer to come back than the first try after it is told of.
      if ((fault as RivuletError).code !== 'CLOSED') faults.push(fault);
    });
    client.onGap((gap) => faults.push(gap));
    const seen: number[] = [];
    client.on('blob.created', (event) => void seen.push(event.seq ?? 0));
    await until('connected', () => client.state === 'connected');

    // The oracle: what the stream acknowledged.
    const stored: number[] = [];
    let publishing = true;
    const published = Array.from({ length: PUBLISHERS }, async () => {
      for (let number = 0; publishing; number++)
        stored.push(await rig.publish('blob.created', blob(number), 'ada'));
    });
    for (let count = 0; count < RESTARTS; count++) {
      const before = seen.length;
      await until('events come', () => seen.length > before);
      await router.kill();
      router = await rig.router({}, port);
      client.reconnect();
    }
    publishing = false;
    await Promise.all(published);
    await until('the last event', () => seen.at(-1) === Math.max(...stored.slice(-PUBLISHERS)));
    client.close();

    const got = new Set(seen);
    const lost = stored.filter((seq) => !got.has(seq)).length;
    const twice = seen.length - got.size;
    const reordered = seen.filter((seq, index) => index > 0 && seq < (seen[index - 1] ?? 0)).length;
    console.log(
      `${stored.length} events, ${RESTARTS} restarts: ${lost} lost, ${twice} twice, ${reordered} reordered`,
    );
    assert.deepEqual([lost, twice, reordered, faults], [0, 0, 0, []]);
    assert(stored.length > RESTARTS);
  } finally {
    await rig[Symbol.asyncDispose]();
  }
});
