/** The package as it is published: its shape, its size, and what a project that installs it can do. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';

const ROOT = new URL('../../../', import.meta.url).pathname;
/** The most that the client may weigh, minified by Vite's bundler and gzipped, in bytes. */
const MOST = 5 * 1024;

// Inside the tree, so that what a package expects beside it (React) is found.
mkdirSync(join(ROOT, '.tools'), { recursive: true });
const project = mkdtempSync(join(ROOT, '.tools/sdk-ts-'));
let packed: string;

const run = (command: string, ...rest: string[]) =>
  execFileSync(command, rest, { cwd: project, encoding: 'utf8' });
const bin = (name: string, ...rest: string[]) => run(join(ROOT, 'node_modules/.bin', name), ...rest);

before(() => {
  writeFileSync(join(project, 'package.json'), '{"name":"project","private":true,"type":"module"}');
  const [{ filename }] = JSON.parse(run('npm', 'pack', '--json', '--silent', join(ROOT, 'sdk-ts')));
  packed = join(project, filename);
  run('npm', 'install', '--no-audit', '--no-fund', '--silent', '--offline', '--omit=peer', packed);
});
after(() => rmSync(project, { recursive: true, force: true }));

test('publint finds nothing', () => {
  assert.match(bin('publint', 'run', packed, '--strict'), /All good/);
});

test('are the types wrong? finds nothing', () => {
  bin('attw', packed, '--profile', 'esm-only', '--no-color');
});

test('the whole of the client is at most 5 kB gzipped', async () => {
  const entry = join(project, 'entry.js');
  writeFileSync(entry, "export * from '@rivulet/client';");
  const { output } = await (await rolldown({ input: entry })).generate({ format: 'esm', minify: true });
  const size = gzipSync(output[0].code, { level: 9 }).length;
  console.log(`@rivulet/client: ${size} bytes gzipped, of at most ${MOST}`);
  assert(size <= MOST, `${size} bytes`);
});

test('what is not imported is shaken off', async () => {
  const entry = join(project, 'shaken.js');
  writeFileSync(entry, "import '@rivulet/client'; export { Pattern } from '@rivulet/client/protocol';");
  const { output } = await (await rolldown({ input: entry })).generate({ format: 'esm', minify: true });
  assert.doesNotMatch(output[0].code, /WebSocket|subscribe/);
});

test('it needs nothing but itself, and no browser to be imported', () => {
  const manifest = JSON.parse(
    readFileSync(join(project, 'node_modules/@rivulet/client/package.json'), 'utf8'),
  );
  assert.equal(manifest.dependencies, undefined);
  const script = `
    import { createClient } from '@rivulet/client';
    import { VERSION } from './node_modules/@rivulet/client/dist/version.js';
    import '@rivulet/client/protocol';
    import '@rivulet/client/worker';
    let error;
    try { createClient({ url: 'ws://127.0.0.1:1', token: 'ada' }); } catch (thrown) { error = thrown.message; }
    console.log(JSON.stringify({ VERSION, error }));`;
  // React Native and Node before 22 have no window, no document, and maybe no WebSocket.
  const said = JSON.parse(
    run(process.execPath, '--no-experimental-websocket', '--input-type=module', '--eval', script),
  );
  assert.deepEqual(said, { VERSION: manifest.version, error: 'no WebSocket here: give one in the options' });
});

test('a thousand event types cost the compiler little', () => {
  const types = Array.from({ length: 1000 }, (_, index) => `family${index % 50}.event${index}`);
  const uses = types
    .slice(0, 50)
    .flatMap((type) => [
      `client.on('${type}', (event) => event.data.field_of_${type.replace('.', '_')});`,
      `client.on('${type.split('.')[0]}.*', (event) => event.type);`,
    ]);
  writeFileSync(
    join(project, 'thousand.ts'),
    `import { createClient, type Family } from '@rivulet/client';
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
  const said = bin('tsc', '-p', project, '--extendedDiagnostics');
  const of = (name: string) => Number(new RegExp(`${name}: +([\\d.]+)`).exec(said)?.[1]);
  console.log(`${of('Instantiations')} instantiations, ${of('Check time')} s to check`);
  // Counted, not timed: the form that distributes over the types takes tens of millions.
  assert(of('Instantiations') < 500_000, said);
});

test('an older Node with a WebSocket given connects', async () => {
  const { Rig, token, until } = await import('./rig.ts');
  const { createClient } = await import('../../../sdk-ts/dist/index.js');
  const { WebSocket } = await import('ws');
  const rig = await Rig.start();
  try {
    const { url } = await rig.router();
    const client = createClient({ url, token: token('ada'), WebSocket: WebSocket as never });
    await until('connected', () => client.state === 'connected');
    client.close();
  } finally {
    await rig[Symbol.asyncDispose]();
  }
});
