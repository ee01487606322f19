// Checked by the compiler alone: each line that must not compile says so.

import type { CLOSE_CODES, CommandMap, EventFrame, EventMap, ServerFrame } from '../src/generated.js';

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
