"""A program as users write it, read by mypy and pyright in their strict modes; never run.

A line that ends with `# wrong` must be an error to both, and no other line may be one to either.
"""

from collections.abc import Awaitable
from typing import Any, ClassVar, Literal, assert_type

from rivulet_client import (
    BlobCreated,
    BlobCreatedEvent,
    BookDeletedEvent,
    Client,
    Command,
    CreateBlob,
    CreateBlobReply,
    Cursor,
    Envelope,
    Family,
    Gap,
    Model,
    ProcessorFailedEvent,
    RivuletError,
    SyncClient,
    UnknownEvent,
)


class OrderPlaced(Model):
    order_id: str
    total: float


class OrderPlacedEvent(Envelope):
    type: Literal["order.placed"]
    data: OrderPlaced


class OrderShipped(Model):
    order_id: str


class OrderShippedEvent(Envelope):
    type: Literal["order.shipped"]
    data: OrderShipped


class Reserved(Model):
    left: int


class Reserve(Command[Reserved]):
    command_name: ClassVar[str] = "reserve_stock"
    sku: str


shop: Family[OrderPlacedEvent | OrderShippedEvent] = Family(
    events={"order.placed": OrderPlacedEvent, "order.shipped": OrderShippedEvent},
    commands={"reserve_stock": Reserve},
)


async def on_gap(gap: Gap) -> None:
    print(gap.from_seq, gap.reason)


class Store:
    def load(self) -> Cursor | None:
        return None

    def save(self, cursor: Cursor) -> None:
        print(cursor.stream, cursor.seq)


async def bring() -> str:
    return "token"


async def reads() -> None:
    async with Client("http://127.0.0.1:8010", token=bring, on_gap=on_gap, cursor_store=Store()) as client:
        async for event in client.events("blob.*", "processor.failed"):
            match event:
                case BlobCreatedEvent(data=blob):
                    assert_type(blob, BlobCreated)
                    print(blob.preview)
                    print(blob.preveiw)  # wrong
                case ProcessorFailedEvent():
                    assert_type(event.data.retry_after, float | None)
                    print(event.data.retry_after + 1)  # wrong
                case UnknownEvent():
                    assert_type(event.data, dict[str, Any])
                case _:
                    assert_type(event.seq, int | None)
            if event.type == "book.deleted":
                print(event.data)
            if isinstance(event, OrderPlacedEvent):  # of a family that this client was not given
                print("never")
        async for piece in client.raw("*"):
            assert_type(piece, bytes)
        client.events(7)  # wrong


async def asks(client: Client) -> None:
    reply = await client.command(CreateBlob(content="c", schema_id="text"), deadline=2.5)
    assert_type(reply, CreateBlobReply)
    print(reply.blob_id)
    print(reply.blob)  # wrong
    await client.command(CreateBlob(content="c"))  # wrong
    await client.command(CreateBlob(content=7, schema_id="text"))  # wrong
    await client.command(BlobCreated)  # wrong
    try:
        await client.reconnect()
    except RivuletError as error:
        assert_type(error.retry_after, float | None)


async def own_families() -> None:
    client = Client("https://live.example", token="ada", families=[shop])
    async for event in client.events("order.*"):
        match event:
            case OrderPlacedEvent(data=order):
                assert_type(order.total, float)
            case OrderShippedEvent(data=order):
                print(order.total)  # wrong
            case BookDeletedEvent() | UnknownEvent():
                pass
            case _:
                print(event.type)
    assert_type(await client.command(Reserve(sku="s")), Reserved)
    await client.command(Reserve(skew="s"))  # wrong


def without_a_loop() -> None:
    client = Client.sync("http://127.0.0.1:8010", token=lambda: "ada", buffer=10)
    for event in client.events("book.*"):
        if isinstance(event, BookDeletedEvent):
            assert_type(event.data.book_id, str)
    assert_type(client.command(Reserve(sku="s")), Reserved)
    Client.sync("http://127.0.0.1:8010", token="ada", bufer=10)  # wrong
    mine = Client.sync("http://127.0.0.1:8010", token="ada", families=[shop])
    assert_type(mine, SyncClient[OrderPlacedEvent | OrderShippedEvent])


def states(client: Client) -> Awaitable[None]:
    # Exhaustive: nothing is returned after it.
    match client.state:
        case "connecting" | "connected" | "waiting":
            return client.close()
        case "stopped" | "closed":
            return client.reconnect()


Client("http://127.0.0.1:8010")  # wrong
Client("http://127.0.0.1:8010", token=7)  # wrong
