"""Commands: asked, answered once, and what comes of them when the router is away or says no."""

import asyncio
import unittest
from collections import Counter
from typing import Any

from harness import Live, free_port, soon, until

from rivulet_client import Client, CreateBlob, ProcessBlob, RivuletError


def blob(content: str) -> CreateBlob:
    return CreateBlob(content=content, schema_id="text")


class Commands(Live):
    async def failed(self, awaited: Any) -> RivuletError:
        with self.assertRaises(RivuletError) as raised:
            await soon(awaited)
        return raised.exception

    async def test_a_command_is_typed_in_and_out(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        await backend.answer("create_blob", lambda data: {"blob_id": data["content"].upper(), "more": 1})
        client = await self.client(router)
        reply = await soon(client.command(blob("a")))
        self.assertEqual((reply.blob_id, reply.model_extra), ("A", {"more": 1}))

    async def test_errors_carry_all_that_was_said(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        refusal = {"code": "NO_ROOM", "message": "full", "field": "content", "retry_after": 2.5, "shelf": 7}
        await backend.answer("create_blob", lambda _: {"error": refusal})
        client = await self.client(router)
        error = await self.failed(client.command(blob("a")))
        said = (error.code, error.message, error.field, error.retry_after, dict(error.extra))
        self.assertEqual(said, ("NO_ROOM", "full", "content", 2.5, {"shelf": 7}))

        error = await self.failed(client.command(ProcessBlob(blob_id="b", processor_id="p")))
        self.assertEqual(error.code, "BACKEND_UNAVAILABLE")
        error = await self.failed(client.command(blob("x" * 100_000)))
        self.assertEqual(error.code, "TOO_LARGE")
        # Neither of them cost the session.
        self.assertEqual(client.state, "connected")

    async def test_a_reply_that_is_not_of_its_model_is_an_error(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        await backend.answer("create_blob", lambda _: {"blob_id": 7})
        client = await self.client(router)
        self.assertEqual((await self.failed(client.command(blob("a")))).code, "INVALID_MESSAGE")

    async def test_commands_wait_for_a_router_up_to_a_bound_and_a_deadline(self) -> None:
        server = self.nats()
        port = free_port()
        backend = await self.backend(server)
        await backend.answer("create_blob", lambda data: {"blob_id": data["content"]})
        client = Client(f"http://127.0.0.1:{port}", token="ada", command_queue=2)
        await self.enterAsyncContext(client)
        error = await self.failed(client.command(blob("late"), deadline=0.1))
        self.assertEqual((error.code, set(error.extra)), ("COMMAND_TIMEOUT", {"id"}))
        cancelled = asyncio.create_task(client.command(blob("cancelled")))
        waiting = [asyncio.create_task(client.command(blob("0"), deadline=60))]
        await asyncio.sleep(0)
        self.assertEqual((await self.failed(client.command(blob("over")))).code, "QUEUE_FULL")
        # Whoever gives up makes room.
        cancelled.cancel()
        await asyncio.wait([cancelled])
        waiting.append(asyncio.create_task(client.command(blob("1"), deadline=60)))
        self.router(server, port=port)
        self.assertEqual([reply.blob_id for reply in await soon(asyncio.gather(*waiting))], ["0", "1"])

    async def test_a_command_in_flight_at_a_crash_is_asked_again_and_done_once(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        done: Counter[str] = Counter()
        go_on = asyncio.Event()

        async def work(data: dict[str, Any]) -> dict[str, Any]:
            done[data["content"]] += 1
            await go_on.wait()
            return {"blob_id": data["content"]}

        # A callback of nats-py waits for the one before; each command has its own here.
        await backend.answer("create_blob", work)
        client = await self.client(router)
        asked = asyncio.create_task(client.command(blob("a"), deadline=60))
        await until("the backend has it", lambda: done["a"] == 1)
        router.process.kill()
        router.begin()
        await until("it is connected again", lambda: client.state == "connected")
        go_on.set()
        # The router that died can't know the answer any more: a new one learns it from where ids are kept, or
        # says that the outcome is unknown. Never is it done twice.
        try:
            reply = await soon(asked)
            self.assertEqual(reply.blob_id, "a")
        except RivuletError as error:
            self.assertEqual(error.code, "OUTCOME_UNKNOWN")
        self.assertEqual(done["a"], 1)

    async def test_a_command_without_an_answer_has_an_unknown_outcome(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)

        async def never(_: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {}

        await backend.answer("create_blob", never)
        client = await self.client(router)
        error = await self.failed(client.command(blob("a"), deadline=0.5))
        self.assertEqual((error.code, set(error.extra)), ("OUTCOME_UNKNOWN", {"id"}))

    async def test_an_unknown_outcome_may_be_asked_again_by_its_id(self) -> None:
        server = self.nats()
        router, backend = self.router(server), await self.backend(server)
        done: Counter[str] = Counter()
        slow = asyncio.Event()

        async def work(data: dict[str, Any]) -> dict[str, Any]:
            done[data["content"]] += 1
            await slow.wait()
            return {"blob_id": "made"}

        await backend.answer("create_blob", work)
        client = await self.client(router)
        error = await self.failed(client.command(blob("a"), deadline=0.5))
        slow.set()
        reply = await soon(client.command(blob("a"), command_id=error.extra["id"]))
        self.assertEqual((reply.blob_id, done["a"]), ("made", 1))

    async def test_what_is_too_many_is_sent_again_slower_and_costs_no_session(self) -> None:
        server = self.nats()
        limits = {"limits_other_burst": "20", "limits_other_per_second": "10"}
        router, backend = self.router(server, **limits), await self.backend(server)
        done: Counter[str] = Counter()

        def work(data: dict[str, Any]) -> dict[str, Any]:
            done[data["content"]] += 1
            return {"blob_id": data["content"]}

        await backend.answer("create_blob", work)
        states: list[str] = []
        client = await self.client(router, on_state=states.append)
        asked = [client.command(blob(str(number)), deadline=60) for number in range(60)]
        replies = await soon(asyncio.gather(*asked))
        self.assertEqual([reply.blob_id for reply in replies], [str(number) for number in range(60)])
        self.assertEqual(set(done.values()), {1})
        # The router closes at the eleventh bad message of a minute.
        self.assertEqual(states, ["connecting", "connected"])

    async def test_a_closed_client_says_so(self) -> None:
        client = Client(f"http://127.0.0.1:{free_port()}", token="ada")
        async with client:
            waiting = asyncio.create_task(client.command(blob("a"), deadline=60))
            await asyncio.sleep(0)
        self.assertEqual((await self.failed(waiting)).code, "CLOSED")
        self.assertEqual((await self.failed(client.command(blob("a")))).code, "CLOSED")
        with self.assertRaises(RivuletError):
            client.events("*")


if __name__ == "__main__":
    unittest.main()
