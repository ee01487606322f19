"""Rivulet's client: events of NATS as they happen, typed, none lost; and the types of the protocol.

```python
import asyncio
from rivulet import Client

async def main():
    async with Client("http://127.0.0.1:8010", token="ada") as client:
        async for event in client.events("blob.*", "processor.*"):
            print(event)

asyncio.run(main())
```

`Client` reads events and asks commands, `Client.sync` does so without an event loop, `python -m rivulet tail`
prints events in a terminal. `rivulet.nats` is for backends, which publish events and answer commands.
"""

from rivulet import _generated
from rivulet._generated import *  # noqa: F403
from rivulet._wire import Envelope, Model, UnknownEvent
from rivulet.client import Client
from rivulet.connection import State, Token
from rivulet.cursor import Cursor, CursorStore
from rivulet.errors import InvalidPattern, InvalidUserId, RivuletError
from rivulet.family import Command, Family
from rivulet.pattern import Pattern
from rivulet.protocol import CommandFrame, Received, Rejected, decode, encode
from rivulet.reader import Reader
from rivulet.subject import escape_user_id, unescape_user_id
from rivulet.sync import SyncClient, SyncReader

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
