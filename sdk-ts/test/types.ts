// Checked by the compiler alone: each line that must not compile says so.

import type {
  BlobCreated,
  BlobDeleted,
  CLOSE_CODES,
  CommandMap,
  EventFrame,
  EventMap,
  ServerFrame,
} from '../src/generated.js';
import { createClient, type EventFor, type Family, type PatternFor } from '../src/index.js';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function holds<_ extends true>(): void {}

declare const event: EventFrame;
if (event.type === 'blob.deleted') {
  holds<Equal<typeof event.data.deleted_at, string>>();
  // @ts-expect-error: another type's field
  event.data.text;
}
holds<Equal<EventMap['blob.created']['book_id'], string | undefined>>();
holds<Equal<CommandMap['create_blob']['reply']['blob_id'], string>>();
// @ts-expect-error: no such event
export type Misspelt = EventMap['blob.craeted'];

declare const frame: ServerFrame;
if (frame.type === 'gap') {
  holds<Equal<typeof frame.data.to_seq, number>>();
}
holds<Equal<(typeof CLOSE_CODES)[4401], 'new_token'>>();

// A pattern's events, exactly.
type TypesFor<P extends PatternFor<EventMap>> = EventFor<EventMap, P>['type'];
holds<Equal<TypesFor<'blob.created'>, 'blob.created'>>();
holds<Equal<TypesFor<'blob.*'>, 'blob.created' | 'blob.updated' | 'blob.deleted' | 'blob.derived'>>();
holds<Equal<TypesFor<'blob.>'>, TypesFor<'blob.*'>>>();
holds<Equal<TypesFor<'*.created'>, 'blob.created' | 'book.created' | 'conversation.created'>>();
holds<Equal<TypesFor<'*'>, keyof EventMap>>();
holds<Equal<TypesFor<'>'>, keyof EventMap>>();
holds<Equal<TypesFor<'blob.created' | 'book.*'>, 'blob.created' | TypesFor<'book.*'>>>();
holds<Equal<EventFor<EventMap, 'blob.created'>['data'], BlobCreated>>();
type Deep = { 'a.b.c.d': object; x: object };
holds<Equal<PatternFor<{ 'a.b': object }>, 'a.b' | 'a.*' | 'a.>' | '*.b' | '*.*' | '*.>' | '*' | '>'>>();
holds<Equal<EventFor<Deep, 'a.*.c.>'>['type'], 'a.b.c.d'>>();
holds<Equal<EventFor<Deep, 'x'>['type'], 'x'>>();

export async function uses() {
  const client = createClient({ url: '', token: '' });
  client.on('blob.created', (event) => holds<Equal<typeof event.data, BlobCreated>>());
  client.on('blob.*', (event) => {
    if (event.type === 'blob.deleted') holds<Equal<typeof event.data, BlobDeleted>>();
    event.data satisfies { blob_id: string } | { parent_id: string };
    // @ts-expect-error: not every one of them has it
    event.data.deleted_at;
  });
  client.on(['blob.created', 'book.*'], (event) => {
    holds<Equal<typeof event.type, 'blob.created' | 'book.created' | 'book.updated' | 'book.deleted'>>();
  });
  // @ts-expect-error: a typo
  client.on('blob.craeted', () => {});
  // @ts-expect-error: a typo among others
  client.on(['blob.created', 'bok.*'], () => {});
  // @ts-expect-error: no wildcard inside a token
  client.on('blob.cre*', () => {});
  for await (const event of client.events('conversation.*')) event.data satisfies { conversation_id: string };
  const reply = await client.command.createBlob({ content: '', schema_id: '' });
  holds<Equal<typeof reply.blob_id, string>>();
  // @ts-expect-error: a field is missing
  client.command.createBlob({ content: '' });
  // @ts-expect-error: no such command
  client.command.deleteBlob({});
  client.call('process_blob', { blob_id: '', processor_id: '' }, { signal: AbortSignal.timeout(1) });
}

// Families of one's own: by what they are, or by their types named.
interface ShopEvents {
  'order.placed': { order_id: string };
}
interface ShopCommands {
  reserve_stock: { request: { sku: string }; reply: { left: number } };
}
declare const shop: Family<ShopEvents, ShopCommands>;
declare const other: Family<{ 'other.thing': { a: 1 } }, { do_it: { request: object; reply: object } }>;

export async function families() {
  const client = createClient({ url: '', token: '', families: [shop, other] });
  client.on('order.*', (event) => holds<Equal<typeof event.data.order_id, string>>());
  client.on('other.thing', (event) => holds<Equal<typeof event.data, { a: 1 }>>());
  client.on('blob.created', (event) => event.data.blob_id);
  const { left } = await client.command.reserveStock({ sku: '' });
  holds<Equal<typeof left, number>>();
  client.command.createBlob({ content: '', schema_id: '' });
  // @ts-expect-error: a typo
  client.on('order.plaecd', () => {});

  const named = createClient<EventMap & ShopEvents, CommandMap & ShopCommands>({
    url: '',
    token: '',
    families: [shop],
  });
  named.on('order.placed', (event) => event.data.order_id);
  // @ts-expect-error: without its list of types, no event of the family would be known
  createClient<EventMap & ShopEvents>({ url: '', token: '' });
  createClient<EventMap>({ url: '', token: '' }).on('book.*', (event) => event.data.book_id);
}
