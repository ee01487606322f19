import { RivuletProvider, useClient, useConnection, useEvent, useLatest } from 'rivulet-client/react';
import { createSharedClient } from 'rivulet-client/worker';
import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const make = () => createSharedClient({ url: query.get('url') ?? '', token: query.get('token') ?? '' });

function Blobs() {
  const client = useClient();
  const { state, shared } = useConnection();
  const [events, setEvents] = useState<string[]>([]);
  const [reply, setReply] = useState('');
  useEvent('blob.created', (event) => setEvents((before) => [...before, event.data.blob_id]));
  const last = useLatest('blob.created');
  const progress = useLatest('processor.status', { key: (event) => event.data.blob_id });
  const process = async () => {
    if (!client || !last) return;
    const answer = await client.command.processBlob({ blob_id: last.data.blob_id, processor_id: 'p' });
    setReply(`${answer.blob_id} by ${answer.processor_id}`);
  };
  return (
    <>
      <p id="state">{state}</p>
      <p id="shared">{shared ? 'shared' : 'alone'}</p>
      <ul id="events">
        {events.map((id) => (
          <li key={id}>{id}</li>
        ))}
      </ul>
      <p id="last">{last?.data.blob_id}</p>
      <p id="latest">{[...progress].map(([id, event]) => `${id} ${event.data.progress}`).join(', ')}</p>
      <button id="process" type="button" onClick={process}>
        Process
      </button>
      <p id="reply">{reply}</p>
    </>
  );
}

function Page() {
  const [shown, setShown] = useState(true);
  return (
    <>
      <button id="toggle" type="button" onClick={() => setShown(!shown)}>
        Toggle
      </button>
      {shown && (
        <RivuletProvider client={make}>
          <Blobs />
        </RivuletProvider>
      )}
    </>
  );
}

const root = document.getElementById('root');
if (root)
  createRoot(root).render(
    <StrictMode>
      <Page />
    </StrictMode>,
  );
