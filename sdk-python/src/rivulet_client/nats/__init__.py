"""For backends: publish events, answer commands. Needs nats-py: `pip install 'rivulet-client[nats]'`.

In five lines:

    nats = await connect()
    publisher = Publisher(nats)
    await publisher.publish(BookCreated(book_id="b1"), user="ada")
"""

try:
    import nats as _nats  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "rivulet_client.nats needs nats-py: pip install 'rivulet-client[nats]'"
    ) from missing

from rivulet_client.nats.backend import Asker, Backend, Refused
from rivulet_client.nats.connect import connect
from rivulet_client.nats.publisher import NotAllStored, NotStored, Outgoing, Published, Publisher

__all__ = [
    "Asker",
    "Backend",
    "NotAllStored",
    "NotStored",
    "Outgoing",
    "Published",
    "Publisher",
    "Refused",
    "connect",
]
