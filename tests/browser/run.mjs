// The demo's page in a real browser: a blob is created and processed, its progress is seen, and frames come
// compressed. With --screenshot FILE it leaves a picture.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const PATIENCE = 120_000;
const { values: options } = parseArgs({ options: { screenshot: { type: 'string' } } });

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

async function demo(port) {
  const child = spawn(
    '.tools/python/bin/python',
    ['examples/demo', '--port', String(port), '--binary', 'target/debug/rivulet'],
    {
      env: { ...process.env, RIVULET_ADMIN_LISTEN: 'off', RIVULET_DATA_DIR: `.tools/browser-${port}` },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.includes('The page')) return child;
  }
  throw new Error('the demo ended before it had a page');
}

async function visit(address) {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-quic', '--disable-background-networking', '--disable-component-update'],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
    page.setDefaultTimeout(PATIENCE);
    const faults = [];
    page.on('pageerror', (fault) => faults.push(String(fault)));
    // Chromium's own record of the handshake: what the server agreed to.
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Network.enable');
    const handshake = new Promise((resolve) => {
      devtools.on('Network.webSocketHandshakeResponseReceived', ({ response }) => resolve(response.headers));
    });
    await page.goto(address);
    const headers = await handshake;
    const agreed = Object.entries(headers).find(
      ([name]) => name.toLowerCase() === 'sec-websocket-extensions',
    );
    if (!agreed?.[1].includes('permessage-deflate')) throw new Error('no permessage-deflate');
    // More than 1 KiB of preview would not be; the reply to a long content is the event itself.
    await page.fill('#content', 'The river is never twice the same. '.repeat(60));
    await page.click('#create button');
    await page.locator('#events', { hasText: 'blob.created' }).waitFor();
    // The example's processor fails now and then, and says so; one asks again.
    const blob = page.locator('#blobs li').first();
    for (let ended = ''; ended !== 'completed'; ) {
      await blob.locator('button').click();
      await blob.locator('button:disabled').waitFor();
      await blob.locator('button:enabled').waitFor();
      ended = (await blob.textContent()).includes('completed') ? 'completed' : 'failed';
    }
    // What came while the page was cut off is read back when it connects again.
    const other = await browser.newPage();
    other.setDefaultTimeout(PATIENCE);
    await other.goto(address);
    await other.locator('#state[data-is=ready]').waitFor();
    // Like its button, for as long as it takes.
    await page.evaluate('client.cut(3_600_000)');
    await page.locator('#state[data-is=waiting]').waitFor();
    await other.fill('#content', 'Said while nobody listened.');
    await other.click('#create button');
    await other.locator('#events', { hasText: 'Said while nobody listened.' }).waitFor();
    await page.evaluate('client.retry()');
    await page.locator('#events', { hasText: 'Said while nobody listened.' }).waitFor();
    if (faults.length > 0) throw new Error(faults.join('\n'));
    if (options.screenshot) await page.screenshot({ path: options.screenshot });
  } finally {
    await browser.close();
  }
}

const port = await freePort();
const running = await demo(port);
try {
  await visit(`http://127.0.0.1:${port}/`);
  console.log('1 passed, 0 failed');
} finally {
  running.kill('SIGTERM');
  await once(running, 'exit');
}
