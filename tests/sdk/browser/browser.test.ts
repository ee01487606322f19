/** The client in real Chromium: tabs that share a socket, tabs that die, networks that go, React in strict mode. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { extname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { type Balancer, blob, PATIENCE, Rig, token, until } from '../ts/rig.ts';

const ROOT = new URL('../../../', import.meta.url).pathname;
const LIMIT = { timeout: 3 * PATIENCE };
const KINDS: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };

let rig: Rig;
let balancer: Balancer;
let browser: Browser;
let server: Server;
let origin: string;

before(async () => {
  rig = await Rig.start();
  // The page's origin is not known before its server is.
  server = createServer(async ({ url = '/' }, response) => {
    const path = new URL(url, 'http://page').pathname;
    const file = path.startsWith('/pages/') ? `.tools${path}` : `sdk-ts${path}`;
    try {
      const body = path === '/' ? '<!doctype html><title>a page</title>' : await readFile(join(ROOT, file));
      response.setHeader('content-type', KINDS[extname(path)] ?? 'text/html').end(body);
    } catch {
      response.writeHead(404).end();
    }
  }).listen(0, '127.0.0.1');
  await until('a page', () => server.address());
  origin = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  const router = await rig.router({ RIVULET_ALLOWED_ORIGINS: origin });
  balancer = await rig.balancer();
  balancer.to = router.port;
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-quic', '--disable-background-networking', '--disable-component-update'],
  });
});
after(async () => {
  await browser?.close();
  server?.close();
  await rig[Symbol.asyncDispose]();
});

/** A browser of one person, its tabs closed with the test. */
async function withContext(body: (context: BrowserContext) => Promise<void>): Promise<void> {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE);
  const faults: string[] = [];
  context.on('weberror', (fault) => faults.push(String(fault.error())));
  try {
    await body(context);
  } finally {
    await context.close();
  }
  assert.deepEqual(faults, []);
}

declare global {
  interface Window {
    client: import('../../../sdk-ts/dist/index.js').Client;
    seen: unknown[];
  }
}

/** Opens a tab with a client, and waits until it is connected. `kind` is its module. */
async function tab(
  context: BrowserContext,
  user: string,
  kind: 'worker' | 'index' = 'worker',
): Promise<Page> {
  const page = await context.newPage();
  await page.goto(origin);
  await page.evaluate(
    async ([url, bearer, file]) => {
      const { createSharedClient, createClient } = await import(file as string);
      window.seen = [];
      window.client = (createSharedClient ?? createClient)({ url, token: async () => bearer });
      window.client.on('blob.created', (event) => window.seen.push(event.data.blob_id));
      window.client.onGap((gap) => window.seen.push(gap));
    },
    [balancer.url, token(user), `/dist/${kind}.js`],
  );
  await page.waitForFunction(() => window.client.state === 'connected');
  return page;
}

const seen = (page: Page) => page.evaluate(() => window.seen);
const numbered = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => `blob-${from + index}`);

async function publish(user: string, from: number, to: number): Promise<void> {
  for (let number = from; number < to; number++) await rig.publish('blob.created', blob(number), user);
}

async function sees(page: Page, from: number, to: number): Promise<void> {
  await page.waitForFunction((count) => window.seen.length >= count, to - from);
  assert.deepEqual(await seen(page), numbered(from, to));
}

test('two tabs of one user share a socket, and another user has one of their own', LIMIT, async () => {
  await withContext(async (context) => {
    const [one, two] = [await tab(context, 'ada'), await tab(context, 'ada')];
    await until('one socket', () => balancer.open === 1);
    const other = await tab(context, 'grace');
    await until('two sockets', () => balancer.open === 2);
    await publish('ada', 0, 5);
    await publish('grace', 7, 8);
    await sees(one, 0, 5);
    await sees(two, 0, 5);
    await sees(other, 7, 8);
    assert.equal(await one.evaluate(() => window.client.shared), true);
    await one.close();
    await publish('ada', 5, 6);
    await sees(two, 0, 6);
    assert.equal(balancer.open, 2);
    await two.close();
    await other.close();
    await until('no socket', () => balancer.open === 0);
  });
});

test('each tab has the answers to its own commands', LIMIT, async () => {
  rig.answer('create_blob', ({ content }) => ({ data: { blob_id: content } }));
  await withContext(async (context) => {
    const tabs = [await tab(context, 'asks'), await tab(context, 'asks')];
    const replies = await Promise.all(
      tabs.map((page, index) =>
        page.evaluate(
          (content) => window.client.command.createBlob({ content, schema_id: 'text' }),
          `content ${index}`,
        ),
      ),
    );
    assert.deepEqual(replies, [{ blob_id: 'content 0' }, { blob_id: 'content 1' }]);
  });
});

test('a tab that is killed is missed by nobody', LIMIT, async () => {
  await withContext(async (context) => {
    const staying = await tab(context, 'killed');
    const killed = await tab(context, 'killed');
    // It was looked at last, so the worker would ask it for a token first.
    const devtools = await context.newCDPSession(killed);
    devtools.send('Page.crash').catch(() => {});
    await new Promise((resolve) => killed.once('crash', resolve));
    await publish('killed', 0, 3);
    balancer.cut();
    await publish('killed', 3, 6);
    await sees(staying, 0, 6);
    await staying.waitForFunction(() => window.client.state === 'connected');
    await until('one socket', () => balancer.open === 1);
  });
});

test('a tab that comes with an older cursor brings what it missed, to itself alone', LIMIT, async () => {
  await withContext(async (context) => {
    const first = await tab(context, 'older');
    const cursor = await first.evaluate(() => window.client.cursor);
    await publish('older', 0, 4);
    await sees(first, 0, 4);
    const second = await context.newPage();
    await second.goto(origin);
    await second.evaluate(
      async ([url, bearer, from]) => {
        const { createSharedClient } = await import('/dist/worker.js' as string);
        window.seen = [];
        const cursorStore = { load: () => JSON.parse(from as string), save: () => {} };
        window.client = createSharedClient({ url, token: bearer, cursorStore });
        window.client.on('blob.created', (event) => window.seen.push(event.data.blob_id));
      },
      [balancer.url, token('older'), JSON.stringify(cursor)],
    );
    await sees(second, 0, 4);
    await publish('older', 4, 6);
    await sees(second, 0, 6);
    await sees(first, 0, 6);
  });
});

test('a tab whose person has become another one leaves the worker', LIMIT, async () => {
  await withContext(async (context) => {
    const staying = await tab(context, 'before');
    const page = await context.newPage();
    await page.goto(origin);
    await page.evaluate(
      async ([url, one, two]) => {
        const { createSharedClient } = await import('/dist/worker.js' as string);
        window.seen = [];
        let asked = 0;
        window.client = createSharedClient({ url, token: async () => (asked++ === 0 ? one : two) });
        window.client.on('blob.created', (event) => window.seen.push(event.data.blob_id));
      },
      [balancer.url, token('before'), token('after')],
    );
    await page.waitForFunction(() => window.client.state === 'connected');
    balancer.cut();
    // Asked for a token, it has another user's.
    await until('two sockets', () => balancer.open === 2);
    await page.waitForFunction(() => window.client.state === 'connected');
    await staying.waitForFunction(() => window.client.state === 'connected');
    await publish('after', 1, 2);
    await publish('before', 2, 3);
    await sees(page, 1, 2);
    await sees(staying, 2, 3);
  });
});

test('offline and back: at once when the browser says so, and nothing is lost', LIMIT, async () => {
  await withContext(async (context) => {
    const page = await tab(context, 'offline', 'index');
    const { to } = balancer;
    balancer.to = undefined;
    await context.setOffline(true);
    balancer.cut();
    await page.waitForFunction(() => window.client.state === 'waiting');
    await publish('offline', 0, 20);
    balancer.to = to;
    await context.setOffline(false);
    await sees(page, 0, 20);
  });
});

test('a tab that was frozen goes on where it was', LIMIT, async () => {
  await withContext(async (context) => {
    const page = await tab(context, 'frozen', 'index');
    const devtools = await context.newCDPSession(page);
    await publish('frozen', 0, 2);
    await sees(page, 0, 2);
    await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
    await publish('frozen', 2, 30);
    await devtools.send('Page.setWebLifecycleState', { state: 'active' });
    await sees(page, 0, 30);
  });
});

test('a tab that comes to the front does not wait for its next try', LIMIT, async () => {
  await withContext(async (context) => {
    const page = await tab(context, 'front', 'index');
    const { to } = balancer;
    balancer.to = undefined;
    await page.evaluate(() => {
      // The next try never comes by itself.
      window.setTimeout = (() => 0) as unknown as typeof setTimeout;
    });
    balancer.cut();
    await page.waitForFunction(() => window.client.state === 'waiting');
    await publish('front', 0, 3);
    balancer.to = to;
    // As the browser does it; headless, every tab is in front.
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await sees(page, 0, 3);
  });
});

test('permessage-deflate is agreed upon and read', LIMIT, async () => {
  await withContext(async (context) => {
    const page = await context.newPage();
    await page.goto(origin);
    const devtools = await context.newCDPSession(page);
    await devtools.send('Network.enable');
    const handshake = new Promise<Record<string, string>>((resolve) => {
      devtools.on('Network.webSocketHandshakeResponseReceived', ({ response }) => resolve(response.headers));
    });
    await page.evaluate(
      async ([url, bearer]) => {
        const { createClient } = await import('/dist/index.js' as string);
        window.seen = [];
        window.client = createClient({ url, token: bearer });
        window.client.on('blob.*', (event) =>
          window.seen.push('preview' in event.data && event.data.preview?.length),
        );
      },
      [balancer.url, token('deflate')],
    );
    const headers = Object.entries(await handshake);
    const agreed = headers.find(([name]) => name.toLowerCase() === 'sec-websocket-extensions');
    assert.match(agreed?.[1] ?? '', /permessage-deflate/);
    await page.waitForFunction(() => window.client.state === 'connected');
    await rig.publish('blob.created', { ...blob(1), preview: 'river '.repeat(2000) }, 'deflate');
    await page.waitForFunction(() => window.seen.length === 1);
    assert.deepEqual(await seen(page), [12_000]);
  });
});

/** Builds a page with the package as it is published. */
function build(source: string, name: string): void {
  const script = join(ROOT, 'tests/sdk/browser/build-page.mjs');
  execFileSync(process.execPath, [script, source, name], { cwd: ROOT, stdio: 'inherit' });
}

test('the shop’s page has its own events and command, from a backend in Go', LIMIT, async () => {
  build('examples/shop/web', 'shop');
  // A stream of its own, as another one is not changed without being asked to.
  await using own = await Rig.start();
  const router = await own.router({
    RIVULET_DEV: 'true',
    RIVULET_JWT_SECRET: '',
    RIVULET_FAMILIES: join(ROOT, 'examples/families'),
  });
  // Built and then run, so that what is ended is the backend and not its compiler.
  const binary = join(own.directory, 'shop');
  execFileSync('go', ['build', '-o', binary, '.'], { cwd: join(ROOT, 'examples/shop/go'), stdio: 'inherit' });
  own.run(binary, { NATS_URL: own.natsUrl });
  await withContext(async (context) => {
    const page = await context.newPage();
    await page.goto(
      `${origin}/pages/shop/dist/index.html?${new URLSearchParams({ router: router.url, user: 'ada' })}`,
    );
    await page.locator('#state', { hasText: 'connected' }).waitFor();
    await own.publish('stock.level', { left: { tea: 12, coffee: 3 } }, 'ada');
    await page.locator('#left', { hasText: '12 tea, 3 coffee' }).waitFor();
    // The backend may still be on its way; its command then has nobody who answers.
    await until('a backend', async () => {
      await page.click('#reserve button');
      await page.locator('#events li, #trouble:not(:empty)').first().waitFor();
      return (await page.locator('#events li').count()) === 1;
    });
    assert.equal(await page.locator('#events li').textContent(), '1 tea put aside');
    await page.selectOption('#sku', 'coffee');
    await page.fill('#count', '4');
    await page.click('#reserve button');
    await page.locator('#trouble', { hasText: 'so many are not left' }).waitFor();
    const lines = [{ sku: 'tea', count: 2, cents: 450 }];
    const order = {
      order_id: 'o1',
      lines,
      pay_by: { kind: 'on_delivery' },
      placed_at: '2026-01-31T12:00:00Z',
    };
    await own.publish('order.placed', order, 'ada');
    await page.locator('#events li', { hasText: 'order o1: 1 lines' }).waitFor();
  });
});

test('a React page, built from the installed package, in strict mode', LIMIT, async () => {
  build('tests/sdk/browser/react', 'react');
  rig.answer('process_blob', ({ blob_id }) => ({ data: { blob_id, processor_id: 'p' } }));
  await withContext(async (context) => {
    const before = balancer.open;
    const page = await context.newPage();
    const query = new URLSearchParams({ url: balancer.url, token: token('react') });
    await page.goto(`${origin}/pages/react/dist/index.html?${query}`);
    await page.locator('#state', { hasText: 'connected' }).waitFor();
    await until('one socket', () => balancer.open === before + 1);
    await publish('react', 0, 3);
    await rig.publish(
      'processor.status',
      { blob_id: 'a', processor_id: 'p', status: 'processing', progress: 0.5 },
      'react',
    );
    await rig.publish(
      'processor.status',
      { blob_id: 'b', processor_id: 'p', status: 'processing', progress: 0 },
      'react',
    );
    await rig.publish(
      'processor.status',
      { blob_id: 'a', processor_id: 'p', status: 'completed', progress: 1 },
      'react',
    );
    await page.locator('#latest', { hasText: 'b 0, a 1' }).waitFor();
    // Strict mode mounts everything twice; each event is handed on once all the same.
    assert.equal(await page.locator('#events li').count(), 3);
    assert.equal(await page.locator('#last').textContent(), 'blob-2');
    await page.click('#process');
    await page.locator('#reply', { hasText: 'blob-2 by p' }).waitFor();
    await page.click('#toggle');
    await until('no socket', () => balancer.open === before);
    await page.click('#toggle');
    await page.locator('#state', { hasText: 'connected' }).waitFor();
    assert.equal(await page.locator('#shared').textContent(), 'shared');
  });
});
