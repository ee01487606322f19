/**
 * What the client costs: events a second of CPU time, from the text of a frame to the handlers, beside bare
 * `JSON.parse` of the same text. `./just bench-sdk`.
 */

import { createClient, type Socket } from '../../../sdk-ts/dist/index.js';
import { blob } from './rig.ts';

const EVENTS = 200_000;
const ROUNDS = 5;

/** A socket whose other end is this program. */
class Fake implements Socket {
  static last: Fake;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  onerror: Socket['onerror'] = null;
  constructor() {
    Fake.last = this;
  }
  send(): void {}
  close(): void {}
}

/** Events a second of CPU time. */
function rate(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return EVENTS / ((user + system) / 1e6);
}

const median = (values: number[]) =>
  values.sort((one, other) => one - other)[values.length >> 1] ?? Number.NaN;

async function client(handlers: number, perFrame: number): Promise<(round: number) => number> {
  const made = createClient({ url: 'ws://none', token: 'ada', WebSocket: Fake });
  let count = 0;
  for (let number = 0; number < handlers; number++) made.on('blob.*', () => void count++);
  // Until the microtasks of its beginning have run.
  while (made.state !== 'connecting' || !Fake.last?.onmessage)
    await new Promise((resolve) => setImmediate(resolve));
  const socket = Fake.last;
  const limits = { max_message_bytes: 65536, max_patterns: 100 };
  const data = { events: ['blob.*'], stream: 'S@1', seq: 0, heartbeat_ms: 25_000, resumed: false, limits };
  socket.onmessage?.({ data: JSON.stringify({ type: 'connected', data }) });
  return (round) => {
    const texts = frames(round, perFrame);
    count = 0;
    const result = rate(() => {
      for (const text of texts) socket.onmessage?.({ data: text });
    });
    if (count !== EVENTS * handlers) throw new Error(`${count} of ${EVENTS * handlers} were handed on`);
    return result;
  };
}

function frames(round: number, perFrame: number): string[] {
  const texts = [];
  for (let at = 0; at < EVENTS; at += perFrame) {
    const events = Array.from({ length: perFrame }, (_, index) => ({
      type: 'blob.created',
      seq: round * EVENTS + at + index + 1,
      time: '2026-01-31T12:00:00.123456Z',
      data: blob(at + index),
    }));
    texts.push(JSON.stringify(perFrame === 1 ? events[0] : events));
  }
  return texts;
}

const rows: [string, (round: number) => number][] = [
  [
    'JSON.parse alone, a frame each',
    (round) => {
      const texts = frames(round, 1);
      return rate(() => {
        for (const text of texts) JSON.parse(text);
      });
    },
  ],
  ['client, a frame each, 1 handler', await client(1, 1)],
  ['client, a frame each, 10 handlers', await client(10, 1)],
  [
    'JSON.parse alone, 50 a frame',
    (round) => {
      const texts = frames(round, 50);
      return rate(() => {
        for (const text of texts) JSON.parse(text);
      });
    },
  ],
  ['client, 50 a frame, 1 handler', await client(1, 50)],
];
console.log(
  `${EVENTS} events of ${frames(0, 1)[0]?.length} bytes, median of ${ROUNDS}, events a second of CPU`,
);
const rates = rows.map((): number[] => []);
for (let round = 0; round < ROUNDS; round++)
  for (const [index, [, run]] of rows.entries()) rates[index]?.push(run(round));
for (const [index, [name]] of rows.entries())
  console.log(
    `${Math.round(median(rates[index] ?? []))
      .toLocaleString('en')
      .padStart(12)}  ${name}`,
  );
process.exit();
