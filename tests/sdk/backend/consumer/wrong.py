"""What the type checkers find: each line that ends with `!`."""

from rivulet_client import CreateBlob, CreateBlobReply, ProcessBlob, ProcessBlobReply
from rivulet_client.nats import Asker, Backend, Publisher


async def main(backend: Backend, publisher: Publisher) -> None:
    @backend.command(CreateBlob)  # another command's reply !
    async def first(request: CreateBlob, asker: Asker) -> ProcessBlobReply:
        raise NotImplementedError

    @backend.command(CreateBlob)  # another command's request !
    async def second(request: ProcessBlob, asker: Asker) -> CreateBlobReply:
        raise NotImplementedError

    @backend.command(CreateBlob)  # no coroutine function !
    def third(request: CreateBlob, asker: Asker) -> CreateBlobReply:
        raise NotImplementedError

    backend.command(CreateBlobReply)  # no command !
    await publisher.publish("text", user="u")  # no data !
    await publisher.publish(CreateBlobReply(blob_id="b"), user=1)  # no user !
