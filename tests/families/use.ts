// The generated module in the SDK's client, against the router and the backend of the test. Prints what it gets.

import { createClient } from 'rivulet-client';
import { type Events, family } from './own.ts';

const client = createClient({ url: process.argv[2] ?? '', token: 'tess', families: [family] });
client.onError((error) => {
  console.error(error);
  process.exit(1);
});

const reserved = new Promise<string>((resolve) => {
  client.on('stock.*', (event) => {
    if (event.type === 'stock.reserved') resolve(event.data.reservation_id);
  });
});
const orders = client.events('order.placed');
const reply = await client.command.reserveStock({ sku: 'tea', count: 1 });
console.log(reply.reservation_id === (await reserved));

for await (const event of orders) {
  const data: Events['order.placed'] = event.data;
  console.log(JSON.stringify(data));
  break;
}
client.close();

// @ts-expect-error: no family has it
() => client.on('order.plcaed', () => {});
// @ts-expect-error: what it takes has a `count`
() => client.command.reserveStock({ sku: 'tea' });
