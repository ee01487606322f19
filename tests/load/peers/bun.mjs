// Bun's own WebSocket server: `publish` to a topic, which it joins over one turn of its loop. (A loop over the
// sockets with `send` was slower in every row.)

import { listening, play } from './source.mjs';

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: (request, own) =>
    own.upgrade(request) ? undefined : new Response('WebSocket only', { status: 426 }),
  websocket: {
    perMessageDeflate: false,
    // Silence is no reason to leave.
    idleTimeout: 0,
    sendPings: false,
    open: (socket) => socket.subscribe('events'),
    message() {},
  },
});
listening(server.port);

play((events) => {
  for (const event of events) server.publish('events', event);
});
