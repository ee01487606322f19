// Builds a page as a user's project would: the packed package installed, types checked, bundled by Vite.
//
//   node build-page.mjs SOURCE NAME    into .tools/pages/NAME/dist

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const [source, name] = process.argv.slice(2);
const project = join(root, '.tools/pages', name);
rmSync(project, { recursive: true, force: true });
mkdirSync(project, { recursive: true });
cpSync(join(root, source), project, { recursive: true });
writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'page', private: true, type: 'module' }));
writeFileSync(
  join(project, 'tsconfig.json'),
  JSON.stringify({
    compilerOptions: {
      module: 'esnext',
      moduleResolution: 'bundler',
      target: 'es2022',
      lib: ['es2022', 'dom', 'dom.iterable'],
      jsx: 'react-jsx',
      strict: true,
      noEmit: true,
      allowImportingTsExtensions: true,
      types: [],
    },
    include: ['*.ts', '*.tsx'],
  }),
);
const npm = (...rest) =>
  execFileSync('npm', rest, { cwd: project, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
const [{ filename }] = JSON.parse(npm('pack', '--json', '--silent', join(root, 'sdk-ts')));
npm('install', '--no-audit', '--no-fund', '--silent', '--omit=peer', '--offline', `./${filename}`);
execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', project], {
  stdio: 'inherit',
});
await build({ root: project, base: './', logLevel: 'warn', build: { outDir: 'dist' } });
