/** A nats-server, routers, a balancer before them, a publisher and a backend: real parts of a test's own. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect as dial, type Socket as TcpSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, headers, type JetStreamClient, type NatsConnection } from 'nats';

const ROOT = new URL('../../../', import.meta.url).pathname;
const ROUTER = process.env.RIVULET_BINARY ?? `${ROOT}target/debug/rivulet`;
/** How long anything may take before a test has failed, in milliseconds. */
export const PATIENCE = 120_000;
const SECRET = 'a secret of the tests that is long enough';

/** Waits until something is so. */
export async function until(what: string, is: () => unknown): Promise<void> {
  const given = performance.now();
  while (!(await is())) {
    if (performance.now() - given > PATIENCE) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A token of a user, as a login would give it; for so many seconds, with what the claim `rivulet` says. */
export function token(user: string, seconds = 3600, rivulet?: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Date.now() / 1000 + seconds;
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp, rivulet })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/**
 * A project in which the package is installed as it is published, and the packed file. It lies inside the tree, so that
 * what the package expects beside it (React) is found.
 */
export function project(): { directory: string; packed: string } {
  mkdirSync(`${ROOT}.tools`, { recursive: true });
  const directory = mkdtempSync(`${ROOT}.tools/project-`);
  writeFileSync(join(directory, 'package.json'), '{"name":"project","private":true,"type":"module"}');
  const npm = (...rest: string[]) => execFileSync('npm', rest, { cwd: directory, encoding: 'utf8' });
  const [{ filename }] = JSON.parse(npm('pack', '--json', '--silent', `${ROOT}sdk-ts`));
  npm('install', '--no-audit', '--no-fund', '--silent', '--offline', '--omit=peer', `./${filename}`);
  return { directory, packed: join(directory, filename) };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

/** Everything that a test started, ended with it. */
export class Rig implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'rivulet-sdk-'));
  readonly #children = new Set<ChildProcess>();
  readonly #closers: (() => unknown)[] = [];
  natsUrl = '';
  nats!: NatsConnection;
  #stream!: JetStreamClient;

  static async start(): Promise<Rig> {
    const rig = new Rig();
    const port = await freePort();
    rig.natsUrl = `nats://127.0.0.1:${port}`;
    const server = spawn(
      `${ROOT}.tools/bin/nats-server`,
      ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', rig.directory],
      { stdio: 'ignore' },
    );
    rig.#children.add(server);
    await until('a nats-server', async () => {
      try {
        rig.nats = await connect({ servers: rig.natsUrl });
        return true;
      } catch {
        return false;
      }
    });
    rig.#stream = rig.nats.jetstream();
    return rig;
  }

  /** A router, ready; on a port of its own, or on one that an earlier one had. */
  async router(settings: Record<string, string> = {}, port?: number): Promise<Router> {
    const router = new Router(port ?? (await freePort()), this.natsUrl, this.directory, settings);
    this.#children.add(router.child);
    await router.ready();
    return router;
  }

  /** Runs something until the test ends. */
  run(command: string, env: Record<string, string>): void {
    const child = spawn(command, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'inherit'] });
    this.#children.add(child);
  }

  /** A port that leads to whatever `to` names. */
  async balancer(): Promise<Balancer> {
    const balancer = new Balancer();
    await balancer.listen();
    this.#closers.push(() => balancer.close());
    return balancer;
  }

  /** Publishes and waits until the stream has it. */
  async publish(type: string, data: object, user: string): Promise<number> {
    const to = headers();
    to.set('Rivulet-User', user);
    const { seq } = await this.#stream.publish(type, JSON.stringify(data), {
      headers: to,
      timeout: PATIENCE,
    });
    return seq;
  }

  /** A backend: `answer` is asked what to reply to a command's data. */
  answer(command: string, answer: (data: Record<string, unknown>, id?: string) => unknown): void {
    this.nats.subscribe(`command.${command}`, {
      callback: async (_, request) => {
        const reply = await answer(request.json(), request.headers?.get('Rivulet-Command-Id'));
        if (reply !== undefined) request.respond(JSON.stringify(reply));
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#closers) await close();
    await this.nats.close();
    for (const child of this.#children) await end(child, 'SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class Router {
  readonly child: ChildProcess;
  readonly port: number;
  readonly url: string;

  constructor(port: number, nats: string, directory: string, settings: Record<string, string>) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    const env = {
      ...process.env,
      RIVULET_LISTEN: `127.0.0.1:${port}`,
      RIVULET_ADMIN_LISTEN: 'off',
      RIVULET_NATS_URL: nats,
      RIVULET_JWT_SECRET: SECRET,
      RIVULET_DATA_DIR: join(directory, String(port)),
      RIVULET_LIMITS_CONNECTIONS_PER_ADDRESS: '0',
      RIVULET_LIMITS_HANDSHAKES_PER_ADDRESS: '0',
      RIVULET_LOG_FILTER: 'warn',
      RIVULET_DRAIN_SPREAD: '200ms',
      ...settings,
    };
    this.child = spawn(ROUTER, ['serve'], { env, cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] });
  }

  async ready(): Promise<void> {
    await until('a ready router', async () => {
      if (this.child.exitCode !== null) throw new Error('the router ended');
      return (await fetch(`${this.url}/health/ready`).catch(() => undefined))?.ok;
    });
  }

  stop(): Promise<void> {
    return end(this.child, 'SIGTERM');
  }

  kill(): Promise<void> {
    return end(this.child, 'SIGKILL');
  }
}

/** What stands before the nodes: TCP through to one of them. */
export class Balancer {
  to: number | undefined;
  readonly #server = createServer((from) => this.#take(from));
  readonly #sockets = new Set<TcpSocket>();
  url = '';

  /** How many connections go through. */
  get open(): number {
    return this.#sockets.size / 2;
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.url = `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Breaks all that goes through. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #take(from: TcpSocket): void {
    if (this.to === undefined) return void from.destroy();
    const there = dial(this.to, '127.0.0.1');
    for (const [one, other] of [
      [from, there],
      [there, from],
    ] as const) {
      this.#sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  }
}

/** Data of a `blob.created`, told from others by a number. */
export const blob = (number: number): Record<string, unknown> => ({
  blob_id: `blob-${number}`,
  user_id: 'ada',
  processor_id: 'test',
  schema_id: 'text',
  preview: '',
  created_at: '2026-01-31T12:00:00Z',
});
