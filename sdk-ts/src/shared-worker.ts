/** What runs in the SharedWorker. Built into one file, so that any bundler takes it as it is. */

import { Hub } from './hub.js';

const hub = new Hub();
(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = ({ ports: [port] }) => {
  if (port) hub.connect(port);
};
