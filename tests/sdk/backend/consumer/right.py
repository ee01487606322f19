"""What a backend writes, and what the type checkers know of it."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from rivulet_client import BookCreated, CreateBlob, CreateBlobReply
from rivulet_client.nats import Asker, Backend, Outgoing, Published, Publisher, Refused, connect


async def main() -> None:
    async with await connect() as nats:
        publisher = Publisher(nats)
        book = BookCreated(book_id="b")
        assert_type(await publisher.publish(book, user="u"), Published)
        assert_type(await publisher.publish_many([Outgoing(book, everyone=True)]), list[Published])
        backend = Backend(nats)

        @backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            if asker.user == "x":
                raise Refused("NOT_FOUND", "none", blob_id=request.content)
            return CreateBlobReply(blob_id="b")

        assert_type(create, Callable[[CreateBlob, Asker], Awaitable[CreateBlobReply]])
        async with backend:
            request = CreateBlob(content="", schema_id="")
            assert_type(await create(request, Asker("u", None)), CreateBlobReply)
