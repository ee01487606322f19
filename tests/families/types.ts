// Compiled beside what is generated of the test's families: its types are exactly those of the schemas.

import type { Commands, Events, TicketOpened } from './own.js';
import { family } from './own.js';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_ extends true>(): void {}

same<Same<Commands['reserve_stock']['request']['count'], number>>();
same<Same<Commands['reserve_stock']['reply']['reservation_id'], string>>();
same<Same<Events['order.shipped']['tracking'], string | null>>();
same<Same<Events['order.shipped']['address'], { street: string; city: string }>>();
same<Same<Events['order.shipped']['carrier'], 'bike' | 'post' | 'van' | (string & {})>>();
same<Same<Events['stock.level']['left'], Record<string, number>>>();
same<Same<TicketOpened['place'], [number, number]>>();
same<Same<TicketOpened['parent'], string | null>>();
same<Same<TicketOpened['by']['mail'], string | undefined>>();
same<Same<Events['invoice.sent']['either'], string | number>>();
same<Same<Events['invoice.sent']['tags'], Record<string, string>>>();
same<Same<Events['invoice.sent']['lines'][number]['count'], number>>();

export function paid(by: Events['invoice.sent']['by']): string {
  return by.kind === 'card' ? by.last4 : by.kind;
}

export const types: { events: Events; commands: Commands } | undefined = family.types;
