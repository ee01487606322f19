"""The router dies without a word, again and again, under load: nothing lost, nothing twice, all in order."""

import asyncio
import json
import random
import unittest

from harness import Backend, Live, soon, take, until

RESTARTS = 100


class Restarts(Live):
    async def test_a_hundred_crashes_under_load_lose_and_double_nothing(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        states: list[str] = []
        client = await self.client(router, on_state=states.append)
        typed, raw = client.events("book.*"), client.raw("book.created", "blob.*")
        await soon(typed.ready())
        await soon(raw.ready())
        published: list[tuple[int, str]] = []
        over = asyncio.Event()
        publishing = asyncio.create_task(_publish(backend, published, over))
        seen: list[tuple[int, str]] = []
        pieces: list[bytes] = []
        reading = [
            asyncio.create_task(_collect(typed, seen)),
            asyncio.create_task(_collect(raw, pieces)),
        ]
        for restart in range(RESTARTS):
            count = len(seen)
            if restart % 3:
                # In the middle of the live events …
                await until("it flows", lambda wanted=count + restart % 7: len(seen) > wanted)
            else:
                # … or of the handshake and the replay.
                await until("it is back", lambda: client.state == "connected")
            await asyncio.sleep(random.uniform(0, 0.05))
            router.process.kill()
            router.begin()
            await until("it is noticed", lambda: states[-1] != "connected")
        over.set()
        await soon(publishing)
        await until("all came", lambda: len(seen) >= len(published) and len(pieces) >= len(published))
        for task in reading:
            task.cancel()
        self.assertGreaterEqual(states.count("connected"), RESTARTS * 2 // 3)
        print(f"{RESTARTS} restarts, {states.count('connected')} sessions, {len(published)} events")
        self.assertEqual([(event.seq, event.data.title) for event in seen], published)
        fields = [json.loads(piece) for piece in pieces]
        self.assertEqual([(event["seq"], event["data"]["title"]) for event in fields], published)
        # And nothing more comes.
        await backend.book("last")
        (last,) = await take(typed, 1)
        self.assertEqual(last.data.title, "last")


async def _publish(backend: Backend, published: list[tuple[int, str]], over: asyncio.Event) -> None:
    """Publishes one after another; what the stream acknowledged is what must come."""
    while not over.is_set():
        title = str(len(published))
        published.append((await backend.book(title), title))
        # Some hundred a second: what a router reads back at its start is not the point here.
        await asyncio.sleep(0.002)


async def _collect(reader: object, into: list[object]) -> None:
    async for item in reader:  # type: ignore[attr-defined]
        into.append(item)


if __name__ == "__main__":
    unittest.main()
