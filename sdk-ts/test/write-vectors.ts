/**
 * Has the compiler run the vectors of events: writes `vectors.generated.ts`, where what decoding brings must be of
 * the event's generated type, and what the edge rejects must not compile. A known gap must compile: else it is
 * none any more.
 */

import { writeFileSync } from 'node:fs';
import { EVENT_TYPES } from '../src/generated.js';
import { decode } from '../src/protocol.js';
import { type EventCase, knownGaps, vectors } from './vectors.js';

const gaps = knownGaps('typescript types', 'events.json');
const known: ReadonlySet<string> = new Set(EVENT_TYPES);
const lines = [
  '// Written by write-vectors.ts from schemas/vectors/events.json.',
  '',
  "import type { EventMap } from '../src/generated.js';",
];
for (const [index, of] of vectors<EventCase>('events.json').entries()) {
  const type: string = JSON.parse(of.wire).type;
  const name = `events_${index}`;
  lines.push('', `// ${of.name.replace(/\s/g, ' ')}`);
  if (of.expect === 'unknown') {
    lines.push('// @ts-expect-error', `${JSON.stringify(type)} satisfies keyof EventMap;`);
    continue;
  }
  if (!known.has(type)) throw new Error(`${of.name}: ${type} is not known`);
  const [received] = decode(of.wire);
  // On one line, as a comment expects the errors of one.
  const data = (
    of.expect === 'ok' && received?.kind === 'event'
      ? JSON.stringify(received.event.data)
      : `(${of.wire}).data`
  ).replace(/[\n\u2028\u2029]/g, ' ');
  if (of.expect === 'reject' && !gaps.has(of.name)) lines.push('// @ts-expect-error');
  // Through a name, so that fields of a later version are no fault.
  lines.push(`const ${name} = ${data}; ${name} satisfies EventMap[${JSON.stringify(type)}];`);
}
writeFileSync(new URL('../../vectors.generated.ts', import.meta.url), `${lines.join('\n')}\n`);
