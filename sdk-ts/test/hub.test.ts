/** From where a session begins for tabs that come together, which a browser would not time on demand. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FromTab, Hub, type ToTab } from '../src/hub.js';
import type { Cursor, Link, MakeLink } from '../src/link.js';

/** A hub whose link does nothing, and what it was asked for. */
function hub() {
  const opened: (Cursor | undefined)[] = [];
  const link = { state: 'connecting', cursor: undefined as Cursor | undefined };
  const make: MakeLink = () =>
    ({
      ...link,
      get cursor() {
        return link.cursor;
      },
      open(cursor?: Cursor) {
        link.cursor = cursor;
        opened.push(cursor);
      },
      sync: () => {},
    }) as unknown as Link;
  const made = new Hub(make);
  const join = (cursor?: Cursor) => {
    const told: ToTab[] = [];
    const port = { postMessage: (what: ToTab) => told.push(what) } as unknown as MessagePort;
    made.connect(port);
    const data: FromTab = {
      join: { url: 'wss://host', device: 'tab', known: [], patterns: [], ...(cursor && { cursor }) },
    };
    port.onmessage?.({ data } as MessageEvent);
    return told;
  };
  return { opened, join };
}

const at = (seq: number): Cursor => ({ stream: 'S@1', seq });

test('a tab with a cursor is waited for by a session that has none yet', () => {
  const { opened, join } = hub();
  join();
  join(at(7));
  assert.deepEqual(opened, [undefined, at(7)]);
});

test('an older cursor brings the session back, a newer one does not', () => {
  const { opened, join } = hub();
  join(at(7));
  const told = join(at(9));
  assert.deepEqual(told, [{ state: 'connecting', cursor: at(7) }]);
  join(at(3));
  join({ stream: 'S@0', seq: 50 });
  assert.deepEqual(opened, [at(7), at(3), { stream: 'S@0', seq: 50 }]);
});
