// Builds `dist/`: the compiler's output, and the worker's script as one file of its own, which any bundler takes as
// it is.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

rmSync(here('dist'), { recursive: true, force: true });
execFileSync(process.execPath, [here('../node_modules/typescript/bin/tsc'), '-p', here('.')], {
  stdio: 'inherit',
});
await build({
  input: here('dist/shared-worker.js'),
  output: { file: here('dist/shared-worker.js'), format: 'esm', minify: true },
  logLevel: 'warn',
});
