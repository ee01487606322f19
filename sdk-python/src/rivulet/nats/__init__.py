"""For backends: publish events, answer commands. Needs nats-py: `pip install 'rivulet[nats]'`.

In five lines:

    nats = await connect()
    publisher = Publisher(nats)
    await publisher.publish(BookCreated(book_id="b1"), user="ada")
"""

try:
    import nats as _nats  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("rivulet.nats needs nats-py: pip install 'rivulet[nats]'") from missing

from rivulet.nats.backend import Asker, Backend, Refused
from rivulet.nats.connect import connect
from rivulet.nats.publisher import NotAllStored, NotStored, Outgoing, Published, Publisher

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
