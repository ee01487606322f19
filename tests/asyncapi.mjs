// The AsyncAPI document, as its own parser reads it: nothing may be found.

import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(await readFile('schemas/asyncapi.json', 'utf8'));
for (const { message, path, severity } of diagnostics) {
  console.log(`severity ${severity} at ${path.join('/')}: ${message}`);
}
const failed = !document || diagnostics.length > 0;
console.log(failed ? '0 passed, 1 failed' : '1 passed, 0 failed');
process.exit(failed ? 1 : 0);
