// Node's `ws`: one text made once, sent to each client in a loop, as its documentation's broadcast does.

import { WebSocketServer } from 'ws';
import { joins, listening, play } from './source.mjs';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 });
server.on('listening', () => listening(server.address().port));

play((events) => {
  const messages = joins ? [`[${events.join(',')}]`] : events;
  for (const message of messages) {
    // As bytes: a string would be encoded anew for each client.
    const bytes = Buffer.from(message);
    for (const client of server.clients) client.send(bytes, { binary: false });
  }
});
