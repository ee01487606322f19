/** The package as it is published: its shape, its size, and what a project that installs it can do. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';
import { blob, project as newProject, Rig, token } from './rig.ts';

const ROOT = new URL('../../../', import.meta.url).pathname;
/** The most that the client may weigh, minified by Vite's bundler and gzipped, in bytes. */
const MOST = 5 * 1024;

let project: string;
let packed: string;

/** Beside the rest: what is run may need an answer of this program. */
const run = async (command: string, ...rest: string[]) =>
  (await promisify(execFile)(command, rest, { cwd: project })).stdout;
const bin = (name: string, ...rest: string[]) => run(join(ROOT, 'node_modules/.bin', name), ...rest);

before(() => {
  ({ directory: project, packed } = newProject());
});
after(() => rmSync(project, { recursive: true, force: true }));

test('publint finds nothing', async () => {
  assert.match(await bin('publint', 'run', packed, '--strict'), /All good/);
});

test('are the types wrong? finds nothing', async () => {
  await bin('attw', packed, '--profile', 'esm-only', '--no-color');
});

test('the whole of the client is at most 5 kB gzipped', async () => {
  const entry = join(project, 'entry.js');
  writeFileSync(entry, "export * from 'rivulet-client';");
  const { output } = await (await rolldown({ input: entry })).generate({
    format: 'esm',
    minify: true,
    comments: false,
  });
  const size = gzipSync(output[0].code, { level: 9 }).length;
  console.log(`rivulet-client: ${size} bytes gzipped, of at most ${MOST}`);
  assert(size <= MOST, `${size} bytes`);
});

test('what is not imported is shaken off', async () => {
  const entry = join(project, 'shaken.js');
  writeFileSync(entry, "import 'rivulet-client'; export { Pattern } from 'rivulet-client/protocol';");
  const { output } = await (await rolldown({ input: entry })).generate({
    format: 'esm',
    minify: true,
    comments: false,
  });
  assert.doesNotMatch(output[0].code, /WebSocket|subscribe/);
});

test('it needs nothing but itself, and no browser to be imported', async () => {
  const manifest = JSON.parse(
    readFileSync(join(project, 'node_modules/rivulet-client/package.json'), 'utf8'),
  );
  assert.equal(manifest.dependencies, undefined);
  const script = `
    import { createClient } from 'rivulet-client';
    import { VERSION } from './node_modules/rivulet-client/dist/version.js';
    import 'rivulet-client/protocol';
    import 'rivulet-client/worker';
    let error;
    try { createClient({ url: 'ws://127.0.0.1:1', token: 'ada' }); } catch (thrown) { error = thrown.message; }
    console.log(JSON.stringify({ VERSION, error }));`;
  // React Native and Node before 22 have no window, no document, and maybe no WebSocket.
  const said = JSON.parse(
    await run(process.execPath, '--no-experimental-websocket', '--input-type=module', '--eval', script),
  );
  assert.deepEqual(said, { VERSION: manifest.version, error: 'no WebSocket: give one in the options' });
});

test('a thousand event types cost the compiler little', async () => {
  const types = Array.from({ length: 1000 }, (_, index) => `family${index % 50}.event${index}`);
  const uses = types
    .slice(0, 50)
    .flatMap((type) => [
      `client.on('${type}', (event) => event.data.field_of_${type.replace('.', '_')});`,
      `client.on('${type.split('.')[0]}.*', (event) => event.type);`,
    ]);
  writeFileSync(
    join(project, 'thousand.ts'),
    `import { createClient, type Family } from 'rivulet-client';
interface Events {
${types.map((type) => `  '${type}': { field_of_${type.replace('.', '_')}: string };`).join('\n')}
}
declare const family: Family<Events, object>;
const client = createClient({ url: '', token: '', families: [family] });
client.on('*', (event) => event.type);
${uses.join('\n')}
// @ts-expect-error: a typo
client.on('family0.evnet0', () => {});`,
  );
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'es2022',
        lib: ['es2022', 'dom'],
        strict: true,
        noEmit: true,
        types: [],
      },
      files: ['thousand.ts'],
    }),
  );
  const said = await bin('tsc', '-p', project, '--extendedDiagnostics');
  const of = (name: string) => Number(new RegExp(`${name}: +([\\d.]+)`).exec(said)?.[1]);
  console.log(`${of('Instantiations')} instantiations, ${of('Check time')} s to check`);
  // Counted, not timed: the form that distributes over the types takes tens of millions.
  assert(of('Instantiations') < 500_000, said);
});

for (const [runtime, command] of [
  ['Node 22 or newer', [process.execPath]],
  ['an older Node, with a WebSocket given', [process.execPath, '--no-experimental-websocket']],
  ['Bun', [join(ROOT, '.tools/bin/bun')]],
] as const) {
  test(`${runtime} gets events and asks commands`, async () => {
    const rig = await Rig.start();
    try {
      const { url } = await rig.router();
      rig.answer('create_blob', async ({ content }) => {
        await rig.publish('blob.created', blob(1), 'ada');
        return { data: { blob_id: content } };
      });
      const script = join(project, 'program.mjs');
      writeFileSync(
        script,
        `import { createClient } from 'rivulet-client';
         const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket;
         const client = createClient({ url: '${url}', token: '${token('ada')}', WebSocket });
         const event = client.events('blob.*').next();
         const reply = await client.command.createBlob({ content: 'made', schema_id: 'text' });
         console.log(reply.blob_id, (await event).value.data.blob_id);
         client.close();`,
      );
      const [program, ...options] = command;
      assert.equal(await run(program, ...options, script), 'made blob-1\n');
    } finally {
      await rig[Symbol.asyncDispose]();
    }
  });
}
