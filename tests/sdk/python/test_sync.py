"""The facade for programs without an event loop, and the command line."""

import asyncio
import gc
import json
import signal
import subprocess
import sys
import threading
import unittest
from typing import Any

from harness import Live, Router, until

from rivulet_client import Client, CreateBlob, Cursor, RivuletError, SyncClient


class Facade(Live):
    async def test_events_commands_and_errors_without_an_event_loop(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        await backend.answer("create_blob", lambda data: {"blob_id": data["content"]})
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def program() -> tuple[list[str], str, str]:
            with Client.sync(router.url, token="ada") as client:
                client.ready()
                reader = client.events("book.*")
                reader.ready()
                loop.call_soon_threadsafe(ready.set)
                titles = [event.data.title for event, _ in zip(reader, range(50), strict=False)]
                blob_id = client.command(CreateBlob(content="a", schema_id="text")).blob_id
                try:
                    with client.events("no pattern"):
                        pass
                except RivuletError as error:
                    refused = error.code
            return titles, blob_id, refused

        async def publish() -> None:
            await ready.wait()
            for number in range(51):
                await backend.book(str(number))

        outcome, _ = await asyncio.gather(asyncio.to_thread(program), publish())
        self.assertEqual(outcome, ([str(number) for number in range(50)], "a", "INVALID_PATTERN"))

    async def test_a_forgotten_client_ends_with_its_thread_and_saves_its_cursor(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        saved: list[Cursor] = []

        class Store:
            def load(self) -> None:
                return None

            def save(self, cursor: Cursor) -> None:
                saved.append(cursor)

        def program(published: Any) -> str:
            reader = Client.sync(router.url, token="ada", cursor_store=Store()).events("book.*")
            reader.ready()
            published()
            return next(reader).data.title

        loop = asyncio.get_running_loop()
        title = await asyncio.to_thread(
            program, lambda: asyncio.run_coroutine_threadsafe(backend.book("one"), loop).result()
        )
        self.assertEqual(title, "one")
        gc.collect()
        await until("its thread ended", lambda: not [t for t in threading.enumerate() if t.name == "rivulet"])
        self.assertEqual(saved[-1].seq, 1)

    async def test_closing_ends_a_reader_that_waits_in_another_thread(self) -> None:
        router = self.router(self.nats())
        client: SyncClient = await asyncio.to_thread(lambda: Client.sync(router.url, token="ada"))
        reader = await asyncio.to_thread(client.events, "*")
        reading = asyncio.create_task(asyncio.to_thread(list, reader))
        await asyncio.to_thread(reader.ready)
        await asyncio.to_thread(client.close)
        self.assertEqual(await asyncio.wait_for(reading, 60), [])
        with self.assertRaises(RivuletError) as raised:
            client.events("*")
        self.assertEqual(raised.exception.code, "CLOSED")


class Tail(Live):
    def tail(self, router: Router, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "rivulet_client", "tail", router.url, *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background has it ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    async def test_it_prints_events_over_a_restart_until_ctrl_c(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        tail = self.tail(router, "book.*", "--token", "ada", "--json")
        assert tail.stdout is not None
        assert tail.stderr is not None
        self.assertEqual(await asyncio.to_thread(tail.stderr.readline), "connected, book.*\n")
        await backend.book("one")
        line = await asyncio.to_thread(tail.stdout.readline)
        self.assertEqual(json.loads(line)["data"]["title"], "one")
        router.process.kill()
        await backend.book("two")
        router.begin()
        line = await asyncio.to_thread(tail.stdout.readline)
        self.assertEqual(json.loads(line)["data"]["title"], "two")
        tail.send_signal(signal.SIGINT)
        self.assertEqual(await asyncio.to_thread(tail.wait, 60), 130)
        errors = tail.stderr.read()
        self.assertIn("trying again", errors)
        self.assertNotIn("Traceback", errors)

    async def test_it_prints_for_people_and_leaves_after_a_count(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        tail = self.tail(router, "--token", "ada", "--count", "1")
        assert tail.stderr is not None
        await asyncio.to_thread(tail.stderr.readline)
        await backend.book("one")
        output, _ = await asyncio.to_thread(tail.communicate, None, 60)
        self.assertRegex(output, r"^1 \d\d:\d\d:\d\d\.\d{3} book\.created book_id=b title=one\n$")
        self.assertEqual(tail.returncode, 0)

    async def test_what_does_not_get_better_is_said_in_a_line(self) -> None:
        router = self.router(self.nats(), dev=False)
        for arguments, code, said in [
            (["--token", "no-token"], 1, "UNAUTHORIZED: "),
            (["--token", "ada", "blob*"], 2, "PATTERN `blob*`: "),
            ([], 2, "--token or RIVULET_TOKEN is needed"),
        ]:
            tail = self.tail(router, *arguments)
            _, errors = await asyncio.to_thread(tail.communicate, None, 60)
            self.assertEqual(tail.returncode, code, errors)
            self.assertIn(said, errors)
            self.assertNotIn("Traceback", errors)


if __name__ == "__main__":
    unittest.main()
