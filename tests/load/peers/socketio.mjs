// Socket.IO over WebSocket alone: `emit` to all, which encodes a packet once.

import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { joins, listening, play } from './source.mjs';

const http = createServer();
const server = new Server(http, {
  transports: ['websocket'],
  perMessageDeflate: false,
  serveClient: false,
});
http.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => listening(http.address().port));

play((events) => {
  // Objects, as an application has them: Socket.IO makes the JSON.
  const objects = events.map((event) => JSON.parse(event));
  if (joins) server.emit('e', objects);
  else for (const object of objects) server.emit('e', object);
});
