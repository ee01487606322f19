"""How many events a second one core decodes and hands to a reader, beside the bare parsing of their JSON.

    PYTHONPATH=sdk-python/src .tools/python/bin/python tests/sdk/python/bench.py [--events 50000]

No socket: frames go from memory through what the client does with them. CPU time, the best of five.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json

from rivulet_client._generated import BlobCreatedEvent
from rivulet_client.cursor import Cursor
from rivulet_client.delivery import Delivery
from rivulet_client.pattern import Pattern
from rivulet_client.protocol import Decoder, Rejected, parse, split
from rivulet_client.reader import Reader

ROUNDS = 5
ARRAY = 64


def frames(count: int) -> list[bytes]:
    """Events as a router sends them, one a frame."""
    text = (
        b'{"type":"blob.created","seq":%d,"time":"2026-01-31T12:00:00.123456Z","data":{"blob_id":"b%d",'
        b'"user_id":"ada","processor_id":"upload","schema_id":"text","preview":"The river runs over'
        b' the stones, and the stones run over the river","created_at":"2026-01-31T12:00:00Z"}}'
    )
    return [text % (number + 1, number) for number in range(count)]


async def deliver(pieces: list[bytes], raw: bool) -> None:
    """What a session does with its frames, and a program that reads them."""
    delivery = Delivery(Decoder(), None, None, None)
    delivery.cursor = Cursor("S@1", 0)
    reader: Reader[Any] = Reader(delivery.add([Pattern("blob.*")], raw, 1000), lambda: None)

    async def receive() -> None:
        for frame in pieces:
            items = parse(frame)
            parts = split(frame) if delivery.wants_raw and len(items) != 1 else [frame] * len(items)
            for item, part in zip(items, parts, strict=True):
                assert not isinstance(item, Rejected)
                await delivery.event(item, part)
        delivery.close()

    receiving = asyncio.create_task(receive())
    async for _ in reader:
        pass
    await receiving


def loop(function: Callable[[bytes], object], pieces: list[bytes]) -> Callable[[], object]:
    return lambda: [None for piece in pieces if function(piece) is None]


def run(work: Callable[[], Awaitable[None]]) -> Callable[[], object]:
    return lambda: asyncio.run(work())  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=50_000)
    count = parser.parse_args().events
    single = frames(count)
    arrays = [b"[" + b",".join(single[start : start + ARRAY]) + b"]" for start in range(0, count, ARRAY)]
    validate = BlobCreatedEvent.__pydantic_validator__.validate_python
    cases: list[tuple[str, Callable[[], object]]] = [
        ("json.loads", loop(json.loads, single)),
        ("pydantic_core.from_json", loop(from_json, single)),
        ("from_json and the model", loop(lambda piece: validate(from_json(piece)), single)),
        ("events(), one a frame", run(lambda: deliver(single, raw=False))),
        (f"events(), {ARRAY} a frame", run(lambda: deliver(arrays, raw=False))),
        ("raw(), one a frame", run(lambda: deliver(single, raw=True))),
        (f"raw(), {ARRAY} a frame", run(lambda: deliver(arrays, raw=True))),
    ]
    print(f"{count} events of {len(single[-1])} bytes\n\n{'':<26} {'events/s':>10} {'µs an event':>12}")
    for name, work in cases:
        best = min(measure(work) for _ in range(ROUNDS))
        print(f"{name:<26} {count / best:>10,.0f} {best / count * 1e6:>12.2f}")


def measure(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
