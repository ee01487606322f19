// Reads events as `ws` (with that argument) or Node's own WebSocket does: `deflated.mjs URL COUNT [ws]`. Prints what
// was agreed upon once it is connected, then the titles of the events.
const [url, count, library] = process.argv.slice(2);
const Socket = library === 'ws' ? (await import('ws')).WebSocket : WebSocket;
const socket = new Socket(url);
const titles = [];
socket.onerror = (event) => {
  console.error(event.message ?? event.type);
  process.exit(1);
};
socket.onmessage = ({ data }) => {
  const { type, data: body } = JSON.parse(data);
  if (type === 'connected') console.log(JSON.stringify(socket.extensions));
  if (type === 'book.created') titles.push(body.title);
  if (titles.length === Number(count)) {
    console.log(JSON.stringify(titles));
    // Not an exit: a pipe takes only so much at once.
    socket.close();
  }
};
