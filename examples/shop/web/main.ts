// A page of the shop: its own events and its own command, typed by what codegen made of the family's schema.
//
//   npm install rivulet-client vite
//   npx vite            then open /?user=ada, beside `rivulet serve --dev --families examples/families`
//
// and a backend: examples/shop/go or examples/shop/backend.py.

import { createClient, RivuletError } from 'rivulet-client';
import { family } from './shop.ts';

const query = new URLSearchParams(location.search);
const client = createClient({
  url: query.get('router') ?? 'http://127.0.0.1:8010',
  token: query.get('user') ?? 'ada',
  families: [family],
});

const element = <Kind extends HTMLElement>(id: string) => document.getElementById(id) as Kind;
const show = (line: string) => {
  const item = document.createElement('li');
  item.textContent = line;
  element('events').prepend(item);
};

client.onState((state) => {
  element('state').textContent = state;
});
client.on('order.*', (event) => {
  if (event.type === 'order.placed') show(`order ${event.data.order_id}: ${event.data.lines.length} lines`);
  else show(`order ${event.data.order_id} is on its way by ${event.data.carrier}`);
});
client.on('stock.reserved', ({ data }) => show(`${data.count} ${data.sku} put aside`));
client.on('stock.level', ({ data }) => {
  element('left').textContent = Object.entries(data.left)
    .map(([sku, count]) => `${count} ${sku}`)
    .join(', ');
});

element('reserve').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  element('trouble').textContent = '';
  const sku = element<HTMLSelectElement>('sku').value;
  const count = element<HTMLInputElement>('count').valueAsNumber;
  try {
    await client.command.reserveStock({ sku, count });
  } catch (error) {
    element('trouble').textContent = error instanceof RivuletError ? error.message : String(error);
  }
});
