/** One socket, from open to close. */

/** How long a socket may take until the router's first frame, in milliseconds. */
const OPENS_WITHIN = 10_000;

/** What this package needs of a WebSocket: the standard one, or another given by the application. */
export interface Socket {
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: ((closed: { code: number; reason: string }) => void) | null;
  onerror: ((fault: unknown) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** The constructor of {@link Socket}s. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** A socket that is given up when it is silent for too long. */
export interface Connection {
  send(text: string): void;
  /** From now on the socket is given up after so many milliseconds of silence. */
  expect(patience: number): void;
  /** Lets go of it; nothing more comes from it. */
  close(): void;
}

/** Takes a socket that is being opened. `ended` is called once, unless {@link Connection.close} is. */
export function connection(
  socket: Socket,
  text: (text: string) => void,
  ended: (code: number, reason: string) => void,
): Connection {
  let patience = OPENS_WITHIN;
  let heardAt = performance.now();
  let timer: ReturnType<typeof setTimeout>;
  const close = () => {
    clearTimeout(timer);
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  };
  // One timer that looks when it is due, not one for each message.
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(
      () => {
        if (performance.now() - heardAt < patience) return watch();
        // A dead network does not answer a close either: it is not waited for.
        close();
        ended(1006, 'silent');
      },
      patience + heardAt - performance.now(),
    );
  };
  socket.onmessage = ({ data }) => {
    heardAt = performance.now();
    if (typeof data === 'string') text(data);
  };
  socket.onclose = ({ code, reason }) => {
    clearTimeout(timer);
    ended(code, reason);
  };
  // `close` follows, and says more.
  socket.onerror = () => {};
  watch();
  return {
    close,
    send: (message) => socket.send(message),
    expect(milliseconds) {
      patience = milliseconds;
      watch();
    },
  };
}
