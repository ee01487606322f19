"""Rivulet's client: events of NATS as they happen, typed, none lost; and the types of the protocol.

```python
import asyncio
from rivulet_client import Client

async def main():
    async with Client("http://127.0.0.1:8010", token="ada") as client:
        async for event in client.events("blob.*", "processor.*"):
            print(event)

asyncio.run(main())
```

`Client` reads events and asks commands, `Client.sync` does so without an event loop,
`python -m rivulet_client tail` prints events in a terminal. `rivulet_client.nats` is for backends, which
publish events and answer commands.
"""

from rivulet_client import _generated
from rivulet_client._generated import *  # noqa: F403
from rivulet_client._wire import Envelope, Model, UnknownEvent
from rivulet_client.client import Client
from rivulet_client.connection import State, Token
from rivulet_client.cursor import Cursor, CursorStore
from rivulet_client.errors import InvalidPattern, InvalidUserId, RivuletError
from rivulet_client.family import Command, Family
from rivulet_client.pattern import Pattern
from rivulet_client.protocol import CommandFrame, Received, Rejected, decode, encode
from rivulet_client.reader import Reader
from rivulet_client.subject import escape_user_id, unescape_user_id
from rivulet_client.sync import SyncClient, SyncReader

__all__ = [
    "Client",
    "Command",
    "CommandFrame",
    "Cursor",
    "CursorStore",
    "Envelope",
    "Family",
    "InvalidPattern",
    "InvalidUserId",
    "Model",
    "Pattern",
    "Reader",
    "Received",
    "Rejected",
    "RivuletError",
    "State",
    "SyncClient",
    "SyncReader",
    "Token",
    "UnknownEvent",
    "decode",
    "encode",
    "escape_user_id",
    "unescape_user_id",
]
__all__ += _generated.__all__
