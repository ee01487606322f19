"""Commands come typed, are answered once for an id, and what goes wrong is told without telling too much."""

import asyncio
import json
import unittest
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from nats.aio.client import Client
from nats.errors import NoRespondersError
from world import Line, Router, User, nats_server, until

from rivulet_client import Command, CreateBlob, CreateBlobReply, Model, ProcessBlob, ProcessBlobReply
from rivulet_client.nats import Asker, Backend, Refused, connect

BLOB = {"content": "c", "schema_id": "text"}


class Answering(unittest.IsolatedAsyncioTestCase):
    """Through a real router."""

    router: Router

    @classmethod
    def setUpClass(cls) -> None:
        cls.router = cls.enterClassContext(Router())

    async def asyncSetUp(self) -> None:
        self.nats = await self.enterAsyncContext(await connect(data_dir=self.router.data_dir))
        self.backend = Backend(self.nats)

    async def test_a_command_comes_typed_with_who_asks(self) -> None:
        came: list[tuple[CreateBlob, Asker]] = []

        @self.backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            came.append((request, asker))
            return CreateBlobReply(blob_id="b1")

        async with self.backend, User.of(self.router, "a.b é") as user:
            answer = await user.ask("create_blob", BLOB | {"metadata": {"k": None}}, "c1")
            self.assertEqual(answer, {"type": "reply", "id": "c1", "data": {"blob_id": "b1"}})
            await user.ask("create_blob", BLOB)
        request = CreateBlob(content="c", schema_id="text", metadata={"k": None})
        self.assertEqual(came[0], (request, Asker("a.b é", "c1")))
        self.assertEqual(came[1][1], Asker("a.b é", None))

    async def test_a_refusal_is_told_with_all_its_fields(self) -> None:
        @self.backend.command(ProcessBlob)
        async def process(request: ProcessBlob, asker: Asker) -> ProcessBlobReply:
            raise Refused(
                "NOT_FOUND", "no such blob", field="data.blob_id", retry_after=1.5, blob_id="b", tried=[1]
            )

        async with self.backend, User.of(self.router, "ada") as ada:
            answer = await ada.ask("process_blob", {"blob_id": "b", "processor_id": "p"}, "c1")
        told = {"code": "NOT_FOUND", "message": "no such blob", "field": "data.blob_id", "retry_after": 1.5}
        self.assertEqual(answer, {"type": "error", "id": "c1", "data": told | {"blob_id": "b", "tried": [1]}})

    async def test_an_exception_is_logged_and_its_text_told_to_nobody(self) -> None:
        @self.backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            raise RuntimeError("password=hunter2")

        with self.assertLogs("rivulet_client.nats", "ERROR") as logs:
            async with self.backend, User.of(self.router, "ada") as ada:
                answer = await ada.ask("create_blob", BLOB)
        self.assertEqual(answer["data"]["code"], "COMMAND_FAILED")
        self.assertNotIn("hunter2", json.dumps(answer))
        self.assertIn("hunter2", logs.output[0])

    async def test_an_answer_of_another_class_is_a_failure(self) -> None:
        async def create(request: CreateBlob, asker: Asker) -> Any:
            return {"blob_id": "b"}

        self.backend.command(CreateBlob)(create)
        with self.assertLogs("rivulet_client.nats", "ERROR") as logs:
            async with self.backend, User.of(self.router, "ada") as ada:
                answer = await ada.ask("create_blob", BLOB)
        self.assertEqual(answer["data"]["code"], "COMMAND_FAILED")
        self.assertIn("answered with CreateBlobReply, not dict", logs.output[0])

    async def test_an_answer_too_large_for_nats_is_a_failure(self) -> None:
        @self.backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            return CreateBlobReply(blob_id="x" * self.nats.max_payload)

        with self.assertLogs("rivulet_client.nats", "ERROR"):
            async with self.backend, User.of(self.router, "ada") as ada:
                answer = await ada.ask("create_blob", BLOB)
        self.assertEqual(answer["data"]["code"], "COMMAND_FAILED")


class Sorting(unittest.IsolatedAsyncioTestCase):
    """What no router would send, or not so often: asked by hand on a bare nats-server."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.url = cls.enterClassContext(nats_server())

    async def asyncSetUp(self) -> None:
        self.nats: Client = await self.enterAsyncContext(await connect(self.url))
        self.asker: Client = await self.enterAsyncContext(await connect(self.url))

    async def ask(
        self, data: bytes | dict[str, Any], command_id: str | None = None, user: str = "ada"
    ) -> Any:
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"Rivulet-User": user} | ({"Rivulet-Command-Id": command_id} if command_id else {})
        answer = await self.asker.request("command.create_blob", payload, timeout=60, headers=headers)
        return json.loads(answer.data)

    def backend(self, answer: Callable[[], Any], **options: Any) -> Backend:
        """One whose `create_blob` is this."""
        backend = Backend(self.nats, **options)

        @backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            return CreateBlobReply(blob_id=str(await answer()))

        return backend

    async def test_bad_requests_never_come_and_name_the_field(self) -> None:
        async def never() -> None:
            raise AssertionError("it came")

        cases: list[tuple[bytes | dict[str, Any], str, str | None]] = [
            (b"{", "INVALID_JSON", None),
            (b'{"content":"\xff","schema_id":"s"}', "INVALID_JSON", None),
            (b"[]", "INVALID_MESSAGE", "data"),
            (b"", "INVALID_JSON", None),
            ({"schema_id": "s"}, "INVALID_MESSAGE", "data.content"),
            ({"content": 1, "schema_id": "s"}, "INVALID_MESSAGE", "data.content"),
            ({"content": "c", "schema_id": "s", "metadata": []}, "INVALID_MESSAGE", "data.metadata"),
        ]
        async with self.backend(never):
            for data, code, field in cases:
                with self.subTest(data=data):
                    error = (await self.ask(data))["error"]
                    self.assertEqual((error["code"], error.get("field")), (code, field))
            for user in ("", "a.b", "=2a"):
                with self.subTest(user=user), self.assertLogs("rivulet_client.nats", "WARNING"):
                    self.assertEqual((await self.ask(BLOB, user=user))["error"]["code"], "INVALID_MESSAGE")

    async def test_a_repeat_gets_the_first_answer(self) -> None:
        made, may_end = 0, asyncio.Event()

        async def number() -> int:
            nonlocal made
            made += 1
            mine = made
            await may_end.wait()
            return mine

        async with self.backend(number):
            first, repeat = (asyncio.create_task(self.ask(BLOB, "c1")) for _ in range(2))
            other = asyncio.create_task(self.ask(BLOB, "c1", user="grace"))
            await until("both users' commands came", lambda: made == 2)
            may_end.set()
            self.assertEqual(await first, await repeat)
            self.assertNotEqual(await first, await other)
            self.assertEqual(await self.ask(BLOB, "c1"), await first)
            self.assertEqual(await self.ask(BLOB, "c2"), {"data": {"blob_id": "3"}})
            # Without an id, each is one.
            self.assertNotEqual(await self.ask(BLOB), await self.ask(BLOB))

    async def test_of_the_answers_the_oldest_goes(self) -> None:
        made = 0

        async def number() -> int:
            nonlocal made
            made += 1
            return made

        async with self.backend(number, remembered=2):
            told = [
                (await self.ask(BLOB, name))["data"]["blob_id"] for name in ["a", "b", "c", "c", "b", "a"]
            ]
        self.assertEqual(told, ["1", "2", "3", "3", "2", "4"])

    async def test_work_is_bounded_and_what_is_beyond_is_refused(self) -> None:
        at_work, most, may_end = 0, 0, asyncio.Event()

        async def work() -> str:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            await may_end.wait()
            at_work -= 1
            return "done"

        backend = self.backend(work, concurrency=2, waiting=3)
        async with backend:
            asked = [asyncio.create_task(self.ask(BLOB)) for _ in range(5)]
            await until("five came", lambda: len(backend._answering) == 5)
            error = (await self.ask(BLOB))["error"]
            self.assertEqual((error["code"], error["retry_after"]), ("BACKEND_UNAVAILABLE", 5.0))
            may_end.set()
            self.assertEqual(
                [answer["data"]["blob_id"] for answer in await asyncio.gather(*asked)], ["done"] * 5
            )
        self.assertEqual(most, 2)

    async def test_of_several_backends_one_gets_each_command(self) -> None:
        came = [0, 0]

        def count(which: int) -> Callable[[], Any]:
            async def answer() -> str:
                came[which] += 1
                return "done"

            return answer

        other = await self.enterAsyncContext(await connect(self.url))
        second = Backend(other)

        @second.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply:
            return CreateBlobReply(blob_id=await count(1)())

        async with self.backend(count(0)), second:
            for _ in range(100):
                await self.ask(BLOB)
        self.assertEqual(sum(came), 100)
        self.assertGreater(min(came), 0)

    async def test_a_cut_line_is_outlived(self) -> None:
        async def answer() -> str:
            return "done"

        line = await self.enterAsyncContext(Line.to(self.url))
        # It logs that it was cut, which here is meant.
        self.enterContext(patch("nats.aio.client._logger"))
        self.nats = await self.enterAsyncContext(await connect(line.url, reconnect_time_wait=0.05))
        async with self.backend(answer):
            await self.ask(BLOB)
            line.cut()
            await until("it is away", lambda: not self.nats.is_connected)
            await until("it is back", lambda: self.nats.is_connected)
            # What it says to the server again goes before this.
            for _ in range(2):
                await self.nats.flush()
            self.assertEqual(await self.ask(BLOB, "c1"), {"data": {"blob_id": "done"}})

    async def test_closing_answers_what_is_under_way_and_takes_no_more(self) -> None:
        came, may_end = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            came.set()
            await may_end.wait()
            return "done"

        backend = self.backend(work)
        await backend.start()
        asked = asyncio.create_task(self.ask(BLOB))
        await came.wait()
        closing = asyncio.create_task(backend.close())
        with self.assertRaises(NoRespondersError):
            while True:
                await self.ask({})
        self.assertFalse(closing.done())
        may_end.set()
        self.assertEqual(await asked, {"data": {"blob_id": "done"}})
        await closing
        self.assertTrue(self.nats.is_connected)
        # Nor would it after a reconnect.
        self.assertNotIn("command.create_blob", [left.subject for left in self.nats._subs.values()])

    async def test_what_is_not_done_in_time_is_cancelled_and_not_answered(self) -> None:
        came, ended = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            came.set()
            try:
                return await asyncio.Future()
            finally:
                ended.set()

        backend = self.backend(work, grace=0.05)
        await backend.start()
        asked = asyncio.create_task(self.ask(BLOB, "c1"))
        await came.wait()
        with self.assertLogs("rivulet_client.nats", "WARNING"):
            await backend.close()
        self.assertTrue(ended.is_set())
        await self.asker.flush()
        self.assertFalse(asked.done())
        asked.cancel()

    async def test_what_is_published_and_not_asked_harms_nobody(self) -> None:
        async def answer() -> str:
            return "done"

        async with self.backend(answer):
            with self.assertLogs("rivulet_client.nats", "WARNING"):
                headers = {"Rivulet-User": "ada"}
                await self.asker.publish("command.create_blob", json.dumps(BLOB).encode(), headers=headers)
                self.assertEqual(await self.ask(BLOB), {"data": {"blob_id": "done"}})

    async def test_one_function_a_command_and_all_before_the_start(self) -> None:
        async def answer() -> str:
            return "done"

        backend = self.backend(answer)
        with self.assertRaisesRegex(ValueError, "two functions answer create_blob"):
            backend.command(CreateBlob)(lambda request, asker: asyncio.Future())
        async with backend:
            with self.assertRaisesRegex(RuntimeError, "before the backend starts"):
                backend.command(ProcessBlob)(lambda request, asker: asyncio.Future())
            with self.assertRaisesRegex(RuntimeError, "started already"):
                await backend.start()

    async def test_a_request_that_names_no_reply_is_refused_at_once(self) -> None:
        class Nameless(Command):  # type: ignore[type-arg]
            command_name = "nameless"

        class Given(Command[Model]):
            command_name = "given"

        async def answer(request: Any, asker: Asker) -> Model:
            return Model()

        backend = Backend(self.nats)
        backend.command(Given)(answer)
        with self.assertRaisesRegex(TypeError, "Nameless does not say"):
            backend.command(Nameless)(answer)


if __name__ == "__main__":
    unittest.main()
