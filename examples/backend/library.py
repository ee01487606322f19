"""What the example backend does: blobs, and processors that make blobs of blobs. Knows nothing of NATS."""

import asyncio
import logging
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

log = logging.getLogger("library")

# The oldest blob goes when one more comes.
MOST_BLOBS = 10_000


class RefusedError(Exception):
    """A command that is answered with an error."""

    def __init__(self, code: str, message: str, **fields):
        super().__init__(message)
        self.reply = {"code": code, "message": message, **fields}


class NotStoredError(Exception):
    """An event could not be stored in reasonable time."""


@dataclass
class Blob:
    id: str
    owner: str
    content: str


class Library:
    def __init__(self, publish: Callable[..., Awaitable[None]], go_on: Callable, failures: float):
        # publish(event_type, user, **data) returns when the event is stored, or raises NotStoredError;
        # go_on(work) runs work beside.
        self.publish = publish
        self.go_on = go_on
        self.failures = failures
        self.blobs: OrderedDict[str, Blob] = OrderedDict()
        self.chapters: dict[str, int] = {}

    async def create_blob(self, user: str, data: dict) -> dict:
        content, schema_id = text(data, "content"), text(data, "schema_id")
        blob = self.store(user, content)
        await self.publish(
            "blob.created",
            user,
            blob_id=blob.id,
            user_id=user,
            processor_id="user",
            schema_id=schema_id,
            preview=content[:200],
            created_at=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        return {"blob_id": blob.id}

    async def process_blob(self, user: str, data: dict) -> dict:
        blob_id, processor_id = text(data, "blob_id"), text(data, "processor_id")
        blob = self.blobs.get(blob_id)
        if blob is None:
            raise RefusedError("NOT_FOUND", "there is no such blob", blob_id=blob_id)
        # Who asks, the router vouches for; whose the blob is, only the backend knows.
        if blob.owner != user:
            raise RefusedError("FORBIDDEN", "this blob is not yours", blob_id=blob_id)
        self.go_on(self.process(blob, processor_id))
        return {"blob_id": blob_id, "processor_id": processor_id}

    async def process(self, blob: Blob, processor_id: str) -> None:
        """Pretends to work on a blob, and tells how it goes."""
        started = time.monotonic()
        work = {"blob_id": blob.id, "processor_id": processor_id}
        fails = random.random() < self.failures
        for step, line in enumerate(["reading", "splitting", "thinking", "writing"]):
            status = {"status": "processing", "progress": step / 4, "message": line}
            await self.publish("processor.status", blob.owner, **work, **status)
            await asyncio.sleep(random.uniform(0.3, 0.7))
            if fails and line == "thinking":
                status = {"status": "failed", "progress": step / 4}
                await self.publish("processor.status", blob.owner, **work, **status)
                failure = {"code": "MODEL_OVERLOADED", "message": "the model is busy", "retry_after": 5}
                await self.publish("processor.failed", blob.owner, **work, **failure)
                return
        derived = self.store(blob.owner, f"{processor_id} of: {blob.content}")
        await self.publish("processor.status", blob.owner, **work, status="completed", progress=1.0)
        await self.publish(
            "blob.derived",
            blob.owner,
            parent_id=blob.id,
            derived_id=derived.id,
            processor_id=processor_id,
            expansion_ratio=round(len(derived.content) / len(blob.content), 2),
            preview=derived.content[:200],
        )
        duration_ms = round((time.monotonic() - started) * 1000)
        await self.publish(
            "processor.completed", blob.owner, **work, derived_id=derived.id, duration_ms=duration_ms
        )
        number = self.chapters[blob.owner] = self.chapters.get(blob.owner, 0) + 1
        chapter = {"chapter_num": number, "blob_id": derived.id, "title": derived.content[:40]}
        book = {"book_id": f"book_of_{blob.owner}", "title": "Collected works", "chapter_added": chapter}
        await self.publish("book.updated", blob.owner, **book)

    async def live(self, users: list[str], every: float) -> None:
        """Does now and then what users would do, so that there is something to see."""
        lines = [
            "A river is never twice the same",
            "Notes on the Analytical Engine",
            "What the compiler said",
        ]
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * every)
            user = random.choice(users)
            try:
                made = await self.create_blob(user, {"content": random.choice(lines), "schema_id": "text"})
                if random.random() < 0.5:
                    await self.process_blob(user, {**made, "processor_id": "summary"})
            except NotStoredError as error:
                log.warning("not stored: %s", error)

    def store(self, owner: str, content: str) -> Blob:
        blob = Blob(f"blob_{uuid.uuid4().hex[:12]}", owner, content)
        self.blobs[blob.id] = blob
        while len(self.blobs) > MOST_BLOBS:
            self.blobs.popitem(last=False)
        return blob


def text(data: dict, field: str) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RefusedError("INVALID_MESSAGE", f"{field} must be a text that isn't empty", field=field)
    return value
