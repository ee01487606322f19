"""What the example backend does: blobs, and processors that make blobs of blobs."""

import asyncio
import logging
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rivulet_client import (
    BlobCreated,
    BlobDerived,
    BookUpdated,
    Chapter,
    CreateBlob,
    CreateBlobReply,
    ProcessBlob,
    ProcessBlobReply,
    ProcessorCompleted,
    ProcessorFailed,
    ProcessorStatusChanged,
)
from rivulet_client.nats import Asker, NotStored, Publisher, Refused

log = logging.getLogger("library")

# The oldest blob goes when one more comes; work beyond its bound is refused.
MOST_BLOBS = 10_000
MOST_WORK = 1_000


@dataclass
class Blob:
    id: str
    owner: str
    content: str


class Library:
    def __init__(self, publisher: Publisher, failures: float) -> None:
        self.publisher = publisher
        self.failures = failures
        self.blobs: OrderedDict[str, Blob] = OrderedDict()
        self.chapters: dict[str, int] = {}
        self.work: set[asyncio.Task[None]] = set()

    async def create_blob(self, request: CreateBlob, asker: Asker) -> CreateBlobReply:
        for field in ("content", "schema_id"):
            if not getattr(request, field).strip():
                raise Refused("INVALID_MESSAGE", f"{field} is empty", field=f"data.{field}")
        blob = self.store(asker.user, request.content)
        created = BlobCreated(
            blob_id=blob.id,
            user_id=asker.user,
            processor_id="user",
            schema_id=request.schema_id,
            preview=request.content[:200],
            created_at=datetime.now(UTC),
        )
        await self.publisher.publish(created, user=asker.user)
        return CreateBlobReply(blob_id=blob.id)

    async def process_blob(self, request: ProcessBlob, asker: Asker) -> ProcessBlobReply:
        blob = self.blobs.get(request.blob_id)
        if blob is None:
            raise Refused("NOT_FOUND", "there is no such blob", blob_id=request.blob_id)
        # Who asks, the router vouches for; whose the blob is, only the backend knows.
        if blob.owner != asker.user:
            raise Refused("FORBIDDEN", "this blob is not yours", blob_id=request.blob_id)
        if len(self.work) >= MOST_WORK:
            raise Refused("BACKEND_UNAVAILABLE", "too much to do", retry_after=5)
        self.go_on(self.process(blob, request.processor_id))
        return ProcessBlobReply(blob_id=blob.id, processor_id=request.processor_id)

    async def process(self, blob: Blob, by: str) -> None:
        """Pretends to work on a blob, and tells how it goes."""
        started = time.monotonic()
        fails = random.random() < self.failures

        async def tell(status: str, progress: float, message: str | None = None) -> None:
            moved = ProcessorStatusChanged(
                blob_id=blob.id, processor_id=by, status=status, progress=progress, message=message
            )
            await self.publisher.publish(moved, user=blob.owner)

        for step, line in enumerate(["reading", "splitting", "thinking", "writing"]):
            await tell("processing", step / 4, line)
            await asyncio.sleep(random.uniform(0.3, 0.7))
            if fails and line == "thinking":
                await tell("failed", step / 4)
                failed = ProcessorFailed(
                    blob_id=blob.id,
                    processor_id=by,
                    code="MODEL_OVERLOADED",
                    message="the model is busy",
                    retry_after=5.0,
                )
                await self.publisher.publish(failed, user=blob.owner)
                return
        derived = self.store(blob.owner, f"{by} of: {blob.content}")
        await tell("completed", 1.0)
        made = BlobDerived(
            parent_id=blob.id,
            derived_id=derived.id,
            processor_id=by,
            expansion_ratio=round(len(derived.content) / len(blob.content), 2),
            preview=derived.content[:200],
        )
        await self.publisher.publish(made, user=blob.owner)
        completed = ProcessorCompleted(
            blob_id=blob.id,
            processor_id=by,
            derived_id=derived.id,
            duration_ms=round((time.monotonic() - started) * 1000),
        )
        await self.publisher.publish(completed, user=blob.owner)
        number = self.chapters[blob.owner] = self.chapters.get(blob.owner, 0) + 1
        book = BookUpdated(
            book_id=f"book_of_{blob.owner}",
            title="Collected works",
            chapter_added=Chapter(chapter_num=number, blob_id=derived.id, title=derived.content[:40]),
        )
        await self.publisher.publish(book, user=blob.owner)

    async def live(self, users: list[str], every: float) -> None:
        """Does now and then what users would do, so that there is something to see."""
        lines = [
            "A river is never twice the same",
            "Notes on the Analytical Engine",
            "What the compiler said",
        ]
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * every)
            asker = Asker(random.choice(users), None)
            try:
                request = CreateBlob(content=random.choice(lines), schema_id="text")
                made = await self.create_blob(request, asker)
                if random.random() < 0.5:
                    await self.process_blob(ProcessBlob(blob_id=made.blob_id, processor_id="summary"), asker)
            except (NotStored, Refused) as error:
                log.warning("not done: %s", error)

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside; what goes wrong with it is logged."""

        def ended(task: asyncio.Task[None]) -> None:
            self.work.discard(task)
            if not task.cancelled() and (error := task.exception()):
                log.warning("work ended: %r", error)

        task = asyncio.create_task(work)
        self.work.add(task)
        task.add_done_callback(ended)

    def stop(self) -> None:
        for task in self.work:
            task.cancel()

    def store(self, owner: str, content: str) -> Blob:
        blob = Blob(f"blob_{uuid.uuid4().hex[:12]}", owner, content)
        self.blobs[blob.id] = blob
        while len(self.blobs) > MOST_BLOBS:
            self.blobs.popitem(last=False)
        return blob
