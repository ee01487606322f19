"""Events: what readers get, in which order, and what they are told of what they don't."""

import asyncio
import json
import unittest
from pathlib import Path
from typing import Any

from harness import Live, soon, take, token, until

from rivulet_client import BookCreatedEvent, Client, CreateBlob, Cursor, Gap, RivuletError, UnknownEvent


class Reading(Live):
    async def test_readers_get_what_they_asked_for_in_order_and_raw_bytes_untouched(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        client = await self.client(router)
        books, all_raw = client.events("book.*"), client.raw("*")
        await soon(books.ready())
        await soon(all_raw.ready())
        await backend.book("elsewhere", user="grace")
        for title in ["one", "two"]:
            await backend.book(title)
            await backend.publish("book.deleted", {"book_id": "b", "more": 1.50})
            await backend.publish("conversation.created", {"conversation_id": "c"})

        events = await take(books, 4)
        self.assertEqual([event.type for event in events], ["book.created", "book.deleted"] * 2)
        self.assertIsInstance(events[0], BookCreatedEvent)
        self.assertEqual([event.data.title for event in events[::2]], ["one", "two"])
        pieces = await take(all_raw, 6)
        self.assertEqual([json.loads(piece)["seq"] for piece in pieces], [2, 3, 4, 5, 6, 7])
        self.assertIn(b'{"book_id": "b", "more": 1.5}', pieces[1])
        self.assertEqual(client.cursor and client.cursor.seq, 7)

    async def test_patterns_change_while_connected_and_a_left_loop_wants_nothing(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        client = await self.client(router)
        async with asyncio.timeout(120):
            for title in ["first", "second"]:
                reader = client.events("book.created")
                await reader.ready()
                await backend.book(title)
                async for event in reader:
                    self.assertEqual(event.data.title, title)
                    break
                del reader, event
        # Nobody reads any more: the router is told so, and the cursor goes on by other means.
        await until("nothing is wanted", lambda: client._delivery.wanted() == [])
        # Somebody else reads it, so that the router has it when it says how far it is.
        witness = (await self.client(router)).events("book.created")
        await witness.ready()
        await backend.book("unseen")
        await take(witness, 1)
        other = client.events("blob.*")
        await soon(other.ready())
        self.assertEqual(client.cursor and client.cursor.seq, 3)

    async def test_a_refused_pattern_ends_its_reader_alone_and_nothing_is_lost(self) -> None:
        server = self.nats()
        router, backend = self.router(server, dev=False), await self.backend(server)
        limited = token("ada", 3600, rivulet={"events": ["book.*"]})
        client = Client(router.url, token=limited)
        # In the query of the handshake.
        books, blobs = client.events("book.*"), client.events("blob.*")
        async with client:
            with self.assertRaises(RivuletError) as raised:
                await take(blobs, 1)
            self.assertEqual(raised.exception.code, "FORBIDDEN")
            await soon(books.ready())
            # On a session that goes on.
            late = client.events("processor.failed")
            with self.assertRaises(RivuletError) as raised:
                await soon(late.ready())
            self.assertEqual(raised.exception.code, "FORBIDDEN")
            await backend.book("seen")
            (event,) = await take(books, 1)
            self.assertEqual(event.data.title, "seen")

    async def test_a_pattern_refused_when_resuming_leaves_the_cursor_where_it_was(self) -> None:
        server = self.nats()
        router, backend = self.router(server, dev=False), await self.backend(server)
        tokens = [token("ada", 3600), token("ada", 3600, rivulet={"events": ["book.*"]})]
        client = await self.client(router, token=lambda: tokens[0])
        books, blobs = client.events("book.*"), client.events("blob.*")
        await soon(blobs.ready())
        router.process.kill()
        del tokens[0]
        for title in ["one", "two"]:
            await backend.book(title)
        router.start()
        with self.assertRaises(RivuletError):
            await take(blobs, 1)
        self.assertEqual([event.data.title for event in await take(books, 2)], ["one", "two"])

    async def test_events_of_unknown_types_come_as_such_and_are_told(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        told: list[UnknownEvent] = []
        client = await self.client(router, on_unknown=told.append)
        reader = client.events("blob.*")
        await soon(reader.ready())
        await backend.publish("blob.sparkled", {"blob_id": "b", "colour": "red"})
        (event,) = await take(reader, 1)
        self.assertIsInstance(event, UnknownEvent)
        self.assertEqual((event.type, event.data["colour"]), ("blob.sparkled", "red"))
        self.assertEqual(told, [event])


class Losing(Live):
    async def test_a_gap_is_told_before_what_comes_after_it(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        happened: list[Any] = []

        async def on_gap(gap: Gap) -> None:
            # However long it takes.
            await asyncio.sleep(0.2)
            happened.append(gap)

        client = await self.client(router, on_gap=on_gap)
        reader = client.events("book.*")
        await soon(reader.ready())
        await backend.book("seen")
        happened += [event.data.title for event in await take(reader, 1)]
        router.process.kill()
        for _ in range(5):
            await backend.book("gone")
        await backend.stream.purge_stream("RIVULET")
        await backend.book("after")
        router.begin()
        happened += [event.data.title for event in await take(reader, 1)]
        self.assertEqual(happened[0], "seen")
        self.assertIsInstance(happened[1], Gap)
        self.assertEqual((happened[1].from_seq, happened[1].to_seq, happened[1].reason), (1, 6, "evicted"))
        self.assertEqual(happened[2:], ["after"])
        self.assertEqual(client.cursor and client.cursor.seq, 7)

    async def test_a_stream_made_anew_sets_the_cursor_back(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        gaps: list[Gap] = []
        client = await self.client(router, on_gap=gaps.append)
        reader = client.events("book.*")
        await soon(reader.ready())
        for _ in range(3):
            await backend.book("before")
        await take(reader, 3)
        before = client.cursor
        router.process.kill()
        await backend.stream.delete_stream("RIVULET")
        router.begin()
        await until("the gap is told", lambda: gaps)
        await backend.book("after")
        (event,) = await take(reader, 1)
        self.assertEqual((event.data.title, event.seq), ("after", 1))
        self.assertEqual(gaps[0].reason, "epoch_changed")
        self.assertEqual(client.cursor and client.cursor.seq, 1)
        self.assertNotEqual(client.cursor and client.cursor.stream, before and before.stream)

    async def test_a_slow_reader_stops_the_reading_and_loses_nothing(self) -> None:
        server = self.nats()
        router = self.router(server, sessions_outbox_events="100", sessions_compression="false")
        backend = await self.backend(server)
        ends: list[str] = []
        client = Client(router.url, token="ada", buffer=10, on_state=lambda _: ends.append(str(client.error)))
        await self.enterAsyncContext(client)
        reader = client.events("book.*")
        await soon(reader.ready())
        # More than sockets hold on their way.
        count, padding = 4000, 8000 * "x"
        for number in range(count):
            await backend.connection.publish(
                "book.created",
                json.dumps({"book_id": "b", "title": f"{number} {padding}"}).encode(),
                headers={"Rivulet-User": "ada"},
            )
        self.assertLessEqual(len(reader._queue), 10)
        titles = [event.data.title.split()[0] async for event in _first(reader, count)]
        self.assertEqual([int(title) for title in titles], sorted(int(title) for title in titles))
        self.assertEqual(len(set(titles)), count)
        self.assertTrue(any("4413" in end for end in ends), ends)

    async def test_a_loop_that_asks_a_command_for_each_event_gets_its_answers(self) -> None:
        server = self.nats()
        router, backend = self.router(server, limits_other_burst="1000"), await self.backend(server)
        await backend.answer("create_blob", lambda data: {"blob_id": data["content"]})
        client = await self.client(router, buffer=5)
        reader = client.events("book.*")
        await soon(reader.ready())
        await asyncio.gather(*(backend.book(str(number)) for number in range(200)))
        async with asyncio.timeout(120):
            async for event in _first(reader, 200):
                reply = await client.command(CreateBlob(content=event.data.title, schema_id="text"))
                self.assertEqual(reply.blob_id, event.data.title)


class Keeping(Live):
    async def test_a_stored_cursor_survives_the_program_and_never_passes_undone_events(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        store = FileStore(self.directory / "cursor")
        async with Client(router.url, token="ada", cursor_store=store) as client:
            reader = client.events("book.*")
            await soon(reader.ready())
            for number in range(5):
                await backend.book(str(number))
            await until("all came", lambda: client.cursor and client.cursor.seq == 5)
            # The third is still being worked on.
            self.assertEqual([(await anext(reader)).data.title for _ in range(3)], ["0", "1", "2"])
            await until("it is saved", lambda: (cursor := store.load()) and cursor.seq == 2)
        await backend.book("5")
        async with Client(router.url, token="ada", cursor_store=store) as client:
            events = await take(client.events("book.*"), 4)
            self.assertEqual([event.data.title for event in events], ["2", "3", "4", "5"])

    async def test_a_cursor_may_be_given(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        async with Client(router.url, token="ada") as client:
            await soon(client.ready())
            cursor = client.cursor
        assert cursor is not None
        await backend.book("since")
        async with Client(router.url, token="ada", cursor=cursor) as client:
            (event,) = await take(client.events("book.*"), 1)
            self.assertEqual(event.data.title, "since")


class FileStore:
    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Cursor | None:
        return Cursor(*json.loads(self.path.read_text())) if self.path.exists() else None

    def save(self, cursor: Cursor) -> None:
        self.path.write_text(json.dumps(cursor))


async def _first(reader: Any, count: int) -> Any:
    async for event in reader:
        yield event
        count -= 1
        if not count:
            return


if __name__ == "__main__":
    unittest.main()
