/** Every example of the package's README, and what the project's says of it: compiled, and run until it prints something. */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { blob, project as newProject, Rig, type Router } from './rig.ts';

const ROOT = new URL('../../../', import.meta.url).pathname;
const text = ['sdk-ts/README.md', 'README.md'].map((file) => readFileSync(join(ROOT, file), 'utf8')).join('');
const examples = [...text.matchAll(/^```(js|tsx?)\n(.*?)^```/gms)]
  .filter(([, , code]) => code?.includes('rivulet-client'))
  .map(([, language, code], index) => ({ name: `example-${index}.${language}`, code: code ?? '' }));

let project: string;
let rig: Rig;
let router: Router;
let publishing: ReturnType<typeof setInterval>;
const tokens = createServer((_, response) => response.end('ada'));

before(async () => {
  rig = await Rig.start();
  router = await rig.router({
    RIVULET_DEV: 'true',
    RIVULET_JWT_SECRET: '',
    RIVULET_SOURCES: '[{subject = "order.>"}, {subject = "blob.>"}, {subject = "processor.>"}]',
  });
  rig.answer('create_blob', () => ({ data: { blob_id: 'new' } }));
  publishing = setInterval(async () => {
    await rig.publish('blob.created', blob(1), 'ada');
    await rig.publish('order.placed', { order_id: 'o1' }, 'ada');
  }, 100);
  tokens.listen(0, '127.0.0.1');
  await once(tokens, 'listening');
  project = newProject().directory;
  for (const { name, code } of examples) writeFileSync(join(project, name), code);
});
after(async () => {
  clearInterval(publishing);
  tokens.close();
  await rig[Symbol.asyncDispose]();
  rmSync(project, { recursive: true, force: true });
});

test('the first is a program of five lines', () => {
  const [first] = examples;
  assert(first);
  assert(first.name.endsWith('.js'));
  assert.equal(first.code.trim().split('\n').length, 5);
});

test('all compile', () => {
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'es2022',
        lib: ['es2022', 'dom', 'dom.iterable'],
        jsx: 'react-jsx',
        strict: true,
        noEmit: true,
        allowJs: true,
        checkJs: true,
        types: [],
      },
      include: ['example-*'],
    }),
  );
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', project], { stdio: 'inherit' });
});

for (const { name, code } of examples.filter(({ name }) => !name.endsWith('.tsx'))) {
  test(`${name} runs`, async () => {
    const { port } = tokens.address() as { port: number };
    const here = code
      .replace(/https?:\/\/(events\.example\.com|127\.0\.0\.1:8010)/g, router.url)
      .replace("'/token'", `'http://127.0.0.1:${port}/token'`);
    writeFileSync(join(project, name), here);
    const child = spawn(process.execPath, [name], { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    let errors = '';
    child.stderr.on('data', (chunk) => {
      errors += chunk;
    });
    child.stdout.on('data', (chunk) => {
      said += chunk;
      // What a client says first is its state; an example is there for what comes after.
      if (/blob-1|o1|new/.test(said)) child.kill();
    });
    await once(child, 'exit');
    assert.match(said, /blob-1|o1|new/, errors);
  });
}
