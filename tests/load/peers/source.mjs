// The events of a peer, made in its own process at the same times and of the same bytes as the floor's.
//
// Options: --connections N --rate EVENTS_A_SECOND (0: as granted) --size BYTES [--batch MILLISECONDS]. How many
// events may have been sent in all comes line by line to standard input; the peer ends with it.

import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    connections: { type: 'string' },
    rate: { type: 'string', default: '0' },
    size: { type: 'string' },
    batch: { type: 'string' },
  },
});
const rate = Number(values.rate);
const size = Number(values.size);
const batch = values.batch && Number(values.batch);

/** Says where the peer listens: the one line that the bench reads. */
export const listening = (port) => console.log(`127.0.0.1:${port}`);

/** An event's data, as `event.rs` of the bench makes it. */
const data = (number) => {
  // Microseconds: a double holds no nanoseconds since 1970.
  const made = `${Math.round((performance.timeOrigin + performance.now()) * 1000)}000`;
  const start = `{"number":${number},"made":${made},"pad":"`;
  return `${start}${'x'.repeat(Math.max(0, size - start.length - 2))}"}`;
};

/** The event's text, in the envelope that the router puts around. */
const text = (number) =>
  `{"type":"blob.bench","seq":${number + 1},"time":"2026-01-01T00:00:00.000000Z","data":${data(number)}}`;

const until = (time) =>
  new Promise((done) => {
    const wait = time - performance.now();
    if (wait > 0) setTimeout(done, wait);
    else setImmediate(done);
  });

/** Hands the events to `send` as they come up: arrays of texts, of one where nothing is batched. */
export async function play(send) {
  let granted = 0;
  let wake = () => {};
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      granted = Number(line);
      wake();
    })
    .on('close', () => process.exit());
  const grantedBeyond = async (number) => {
    while (granted <= number) await new Promise((done) => (wake = done));
  };

  await grantedBeyond(0);
  const begin = performance.now();
  const due = (number) => begin + (number * 1000) / rate;
  let waiting = [];
  let turn = begin;
  for (let number = 0; ; ) {
    await grantedBeyond(number);
    if (rate === 0) {
      // All that the window lets go, in one turn of the loop.
      const events = [];
      while (number < granted) events.push(text(number++));
      send(events);
      // Lets sockets and grants have their turn.
      await new Promise(setImmediate);
      continue;
    }
    await until(due(number));
    waiting.push(text(number++));
    if (batch) {
      const next = turn + batch;
      if (number < granted && due(number) < next) continue;
      await until(next);
      turn = next;
    }
    send(waiting);
    waiting = [];
  }
}

/** Whether several events go as one message, an array: what an application does that batches. */
export const joins = Boolean(batch);
