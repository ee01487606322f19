/** `rivulet-client/react`: events, connection and the client itself in components. Safe in strict mode. */

import {
  createContext,
  createElement,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import type { Client } from './client.js';
import type { RivuletError } from './errors.js';
import type { CommandMap, EventMap } from './generated.js';
import type { State } from './link.js';
import type { EventFor, PatternFor } from './types.js';

const Context = createContext<Client<never, never> | undefined>(undefined);

export interface RivuletProviderProps<Events = EventMap, Commands = CommandMap> {
  /**
   * The client; or what makes one, which is called when the provider is mounted, and closed when it is unmounted.
   * Another function alone makes no other client: give the provider a `key`, such as the user, for that.
   */
  client: Client<Events, Commands> | (() => Client<Events, Commands>);
  children?: ReactNode;
}

/** Gives a client to the components below. */
export function RivuletProvider<Events, Commands>({
  client,
  children,
}: RivuletProviderProps<Events, Commands>): ReactNode {
  const [own, setOwn] = useState<Client<Events, Commands>>();
  const make = useRef(client);
  useEffect(() => {
    if (typeof make.current !== 'function') return;
    const made = make.current();
    setOwn(made);
    return () => made.close();
  }, []);
  const value = typeof client === 'function' ? own : client;
  return createElement(Context.Provider, { value: value as Client<never, never> | undefined }, children);
}

/** What becomes of the connection. */
export interface Connection {
  /** `waiting` until the provider has made its client. */
  state: State;
  /** Why it is `stopped`, or what ended the last connection. */
  error: RivuletError | undefined;
  /** Whether the socket is shared with the user's other tabs. */
  shared: boolean;
}

/** The hooks, for a map of one's own events: `export const { useEvent, useLatest } = rivuletHooks<EventMap & Events>()`. */
export interface Hooks<Events, Commands> {
  /** The client, once there is one. */
  useClient(): Client<Events, Commands> | undefined;
  /** Calls the handler of the last render with each event of the pattern, while the component is mounted. */
  useEvent<P extends PatternFor<Events>>(
    pattern: P | readonly P[],
    handler: (event: EventFor<Events, P>) => unknown,
  ): void;
  /** The latest event of a type. */
  useLatest<P extends PatternFor<Events>>(type: P): EventFor<Events, P> | undefined;
  /** The latest events of a type by a key, the one changed last at the end; of at most `max` keys (1,000). */
  useLatest<P extends PatternFor<Events>>(
    type: P,
    options: { key: (event: EventFor<Events, P>) => string; max?: number },
  ): ReadonlyMap<string, EventFor<Events, P>>;
  /** What becomes of the connection. */
  useConnection(): Connection;
}

const hooks: Hooks<Record<string, { seq?: number }>, object> = {
  useClient: () => useContext(Context) as never,
  useEvent(pattern, handler) {
    const client = hooks.useClient();
    const latest = useRef(handler);
    useEffect(() => {
      latest.current = handler;
    });
    const patterns = [pattern].flat().join();
    useEffect(
      () => client?.on(patterns.split(',') as never, (event) => latest.current(event as never)),
      [client, patterns],
    );
  },
  useLatest(type: never, { key, max = 1000 }: { key?: (event: never) => string; max?: number } = {}) {
    const [latest, setLatest] = useState<ReadonlyMap<string, unknown>>(new Map());
    hooks.useEvent(type, (event) =>
      setLatest((before) => {
        const name = key ? key(event as never) : '';
        const after = new Map(before);
        after.delete(name);
        after.set(name, event);
        // The one that changed longest ago goes.
        for (const oldest of after.keys()) {
          if (after.size <= max) break;
          after.delete(oldest);
        }
        return after;
      }),
    );
    return (key ? latest : latest.get('')) as never;
  },
  useConnection() {
    const client = hooks.useClient();
    const state = useSyncExternalStore<State>(
      (changed) => client?.onState(changed) ?? (() => {}),
      () => client?.state ?? 'waiting',
      () => 'waiting',
    );
    return { state, error: client?.error, shared: client?.shared ?? false };
  },
};

/** The hooks with the types of one's own events and commands. */
export const rivuletHooks = <Events, Commands = CommandMap>(): Hooks<Events, Commands> => hooks as never;

export const { useClient, useEvent, useLatest, useConnection } = rivuletHooks<EventMap>();
