// Publishes `blob.created` as a Node backend would: an object through JSON.stringify, with nats.js.

import { connect } from 'nats';

const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const client = await connect({ servers, user, pass });
const payload = JSON.stringify({
  user_id: process.argv[2],
  zeta: 1e21,
  blob_id: 'from-node',
  processor_id: 'p1',
  schema_id: 's1',
  preview: 'café 😀 \u2028 </script>',
  book_id: null,
  created_at: new Date(Date.UTC(2026, 0, 1)).toISOString(),
});
await client.jetstream().publish('blob.created', new TextEncoder().encode(payload));
await client.close();
console.log(payload);
