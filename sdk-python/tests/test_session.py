"""What a client does with a router that says what real ones say seldom: one that follows a script."""

import asyncio
import contextlib
import json
import unittest
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any
from unittest.mock import Mock, patch
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from rivulet_client import Client, CreateBlob, Cursor, RivuletError, UnknownEvent

Script = Callable[["Router"], Awaitable[None]]


class Router:
    """One connection of the client's, on the router's side."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        self.query = {name: values[0] for name, values in query.items()}
        self.socket = socket

    async def say(self, frame_type: str, data: Any, **beside: Any) -> None:
        await self.socket.send(json.dumps({"type": frame_type, "data": data, **beside}))

    async def connected(
        self, *, heartbeat_ms: int = 25_000, seq: int = 10, most: int = 100, then: Sequence[Any] = ()
    ) -> None:
        """Lets the client in, with what comes `then` in the same frame."""
        asked = self.query.get("events", "")
        data = {
            "status": "ready", "user_id": "ada", "session_id": "s", "protocol": "rivulet.v1",
            "server": "script", "heartbeat_ms": heartbeat_ms, "events": asked.split(",") if asked else [],
            "durable": True, "stream": "S@1", "seq": seq, "oldest_seq": 0, "resumed": "seq" in self.query,
            "limits": {"max_message_bytes": 65536, "max_patterns": most},
        }  # fmt: skip
        connected = {"type": "connected", "data": data}
        await self.socket.send(json.dumps([connected, *then] if then else connected))

    async def heard(self) -> dict[str, Any]:
        frame = json.loads(await self.socket.recv())
        assert isinstance(frame, dict)
        return frame

    async def book(self, seq: int) -> None:
        await self.socket.send(json.dumps(self.book_frame(seq)))

    @staticmethod
    def book_frame(seq: int) -> dict[str, Any]:
        return {"type": "book.created", "data": {"book_id": "b", "title": str(seq)}, "seq": seq}


async def silent(router: Router) -> None:
    await router.connected()
    await router.socket.wait_closed()


class Scripted(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.routers: list[Router] = []
        self.errors: list[Exception] = []
        self.states: list[str] = []

    async def client(self, *scripts: Script, refuse: list[Response] | None = None, **options: Any) -> Client:
        """A client of a router that plays one script a connection, the last one for all that follow."""
        refusals = refuse or []

        async def play(socket: ServerConnection) -> None:
            router = Router(socket)
            self.routers.append(router)
            # The client may leave at any line of it.
            with contextlib.suppress(ConnectionClosed):
                await scripts[min(len(self.routers), len(scripts)) - 1](router)

        def handshake(_: ServerConnection, __: Request) -> Response | None:
            return refusals.pop(0) if refusals else None

        server = await serve(play, "127.0.0.1", 0, subprotocols=["rivulet.v1"], process_request=handshake)  # type: ignore[list-item]
        self.addAsyncCleanup(server.wait_closed)
        self.addCleanup(server.close)
        port = server.sockets[0].getsockname()[1]
        client = Client(
            f"http://127.0.0.1:{port}",
            **{"token": "ada", "on_error": self.errors.append, "on_state": self.states.append} | options,
        )
        self.addAsyncCleanup(client.close)
        return client

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(120):
            while not holds():  # noqa: ASYNC110 (what is waited for is no one event)
                await asyncio.sleep(0.005)

    async def test_a_silent_router_is_given_up_and_resumed(self) -> None:
        async def falls_silent(router: Router) -> None:
            # In one frame: it is given up only after the event, however slow the machine.
            await router.connected(heartbeat_ms=50, then=[router.book_frame(11)])
            await router.socket.wait_closed()

        client = await self.client(falls_silent, silent)
        client.events("book.*")
        reader = client.events("book.*")
        async with client:
            await self.until(lambda: len(self.routers) == 2)
        self.assertEqual((self.routers[1].query["stream"], self.routers[1].query["seq"]), ("S@1", "11"))
        self.assertEqual(self.routers[0].query["device"], self.routers[1].query["device"])
        self.assertEqual([event.seq async for event in reader], [11])

    async def test_a_reader_that_does_not_take_is_not_taken_for_silence(self) -> None:
        async def floods(router: Router) -> None:
            await router.connected(heartbeat_ms=50, then=[router.book_frame(seq) for seq in range(11, 100)])
            await router.socket.wait_closed()

        client = await self.client(floods, buffer=2)
        reader = client.events("book.*")
        looks = Mock(wraps=monotonic)
        async with client:
            await self.until(lambda: client._delivery.waits_for_room)
            with patch("rivulet_client.session.monotonic", looks):
                # Each look of the watch reads the clock twice, and waits for the session's whole patience.
                await self.until(lambda: looks.call_count >= 8)
            self.assertEqual([(await anext(reader)).seq for _ in range(89)], list(range(11, 100)))
            self.assertEqual(len(self.routers), 1)

    async def test_connected_never_moves_a_cursor_and_other_frames_never_back(self) -> None:
        async def script(router: Router) -> None:
            await router.connected(seq=99)
            await router.say("heartbeat", {"seq": 5})
            await router.say("resumed", {"from_seq": 7, "to_seq": 8, "complete": True})
            await router.say("pong", {"seq": 6})
            await router.book(8)
            await router.book(9)
            await router.socket.wait_closed()

        client = await self.client(script, cursor=Cursor("S@1", 7))
        reader = client.events("*")
        async with client:
            self.assertEqual((await anext(reader)).seq, 9)
            self.assertEqual(client.cursor, Cursor("S@1", 9))

    async def test_patterns_are_added_before_others_are_taken_away_and_no_more_than_needed(self) -> None:
        heard: list[dict[str, Any]] = []

        async def script(router: Router) -> None:
            await router.connected()
            in_force = router.query["events"].split(",")
            while True:
                frame = await router.heard()
                heard.append({"type": frame["type"], "events": frame["events"]})
                if frame["type"] == "subscribe":
                    in_force += frame["events"]
                else:
                    in_force = [text for text in in_force if text not in frame["events"]]
                await router.say(f"{frame['type']}d", {"events": in_force, "seq": 10}, id=frame["id"])

        client = await self.client(script)
        created, _deleted = client.events("blob.created"), client.events("blob.created", "blob.deleted")
        async with client:
            await client.ready()
            self.assertEqual(self.routers[0].query["events"], "blob.created,blob.deleted")
            every = client.events("blob.*")
            await every.ready()
            created.close()
            every.close()
            await self.until(lambda: len(heard) == 4)
        self.assertEqual(
            heard,
            [
                {"type": "subscribe", "events": ["blob.*"]},
                {"type": "unsubscribe", "events": ["blob.created", "blob.deleted"]},
                {"type": "subscribe", "events": ["blob.created", "blob.deleted"]},
                {"type": "unsubscribe", "events": ["blob.*"]},
            ],
        )

    async def test_a_subscription_that_comes_too_often_is_asked_again_when_it_may(self) -> None:
        async def script(router: Router) -> None:
            await router.connected()
            frame = await router.heard()
            late = {"code": "RATE_LIMITED", "message": "too many", "retry_after": 0.05}
            await router.say("error", late, id=frame["id"])
            frame = await router.heard()
            await router.say("subscribed", {"events": frame["events"], "seq": 10}, id=frame["id"])
            await router.socket.wait_closed()

        client = await self.client(script)
        async with client:
            await client.ready()
            async with asyncio.timeout(120):
                await client.events("book.*").ready()
        self.assertEqual(self.errors, [])

    async def _given_up(self, script: Script, deadline: float = 1) -> RivuletError:
        """What a command ends in that the router refuses as one too many until its deadline."""
        client = await self.client(script)
        async with client:
            await client.ready()
            with self.assertRaises(RivuletError) as raised:
                await client.command(CreateBlob(content="c", schema_id="s"), deadline=deadline)
        return raised.exception

    async def test_what_is_too_much_until_its_deadline_says_so(self) -> None:
        heard: list[str] = []

        async def script(router: Router) -> None:
            await router.connected()
            while True:
                heard.append((await router.heard())["id"])
                # Later ones come a second apart: none is on its way when the deadline comes.
                after = 0.01 if len(heard) == 1 else 3600
                late = {"code": "RATE_LIMITED", "message": "too many", "retry_after": after}
                await router.say("error", late, id=heard[-1])

        error = await self._given_up(script, deadline=3)
        self.assertEqual((error.code, error.retry_after), ("RATE_LIMITED", 3600))
        self.assertGreater(len(heard), 1)
        self.assertEqual(len(set(heard)), 1)

    async def test_what_may_have_been_done_before_it_was_refused_has_an_unknown_outcome(self) -> None:
        refused = 0

        async def script(router: Router) -> None:
            nonlocal refused
            await router.connected()
            if len(self.routers) == 1:
                await router.heard()
                router.socket.transport.abort()
                return
            while True:
                late = {"code": "RATE_LIMITED", "message": "too many", "retry_after": 60}
                await router.say("error", late, id=(await router.heard())["id"])
                refused += 1

        error = await self._given_up(script, deadline=4)
        self.assertGreater(refused, 0)
        self.assertEqual(error.code, "OUTCOME_UNKNOWN")

    async def test_more_patterns_than_a_session_holds_end_the_readers_that_came_last(self) -> None:
        client = await self.client(lambda router: _connected(router, most=2))
        readers = [client.events(pattern) for pattern in ["a.a", "b.b", "c.c"]]
        async with client:
            with self.assertRaises(RivuletError) as raised:
                await anext(readers[2])
            self.assertEqual(raised.exception.code, "TOO_MANY_PATTERNS")

    async def test_a_refused_query_is_asked_again_without_what_was_refused_from_an_unmoved_cursor(
        self,
    ) -> None:
        async def refuses(router: Router) -> None:
            await router.connected(seq=50)
            no = {"code": "FORBIDDEN", "message": "no", "field": "events[1]"}
            await router.socket.send(
                json.dumps([{"type": "error", "data": no}, {"type": "heartbeat", "data": {"seq": 50}}])
            )
            await router.socket.wait_closed()

        client = await self.client(refuses, silent, cursor=Cursor("S@1", 20))
        kept, refused = client.events("a.a"), client.events("b.b")
        async with client:
            with self.assertRaises(RivuletError):
                await anext(refused)
            await kept.ready()
        second = self.routers[1].query
        self.assertEqual((second["events"], second["seq"]), ("a.a", "20"))
        self.assertEqual(self.states[:4], ["connecting", "connected"] * 2)

    async def test_what_the_router_says_of_when_is_obeyed(self) -> None:
        async def later(router: Router) -> None:
            error = {"code": "UNAVAILABLE", "message": "not now", "retry_after": 7.0}
            await router.say("error", error)
            await router.socket.close(1013)

        async def too_fast(router: Router) -> None:
            await router.socket.close(4429, '{"retry_after":9}')

        for script, at_least in [(later, 7.0), (too_fast, 9.0)]:
            client = await self.client(script)
            waits: list[float] = []
            decide = client._connection._decide
            client._connection._decide = lambda ended, decide=decide, waits=waits: _noted(  # type: ignore[method-assign,misc]
                waits, decide(ended)
            )
            async with client:
                await self.until(lambda client=client: client.state == "waiting")
            self.assertGreaterEqual(waits[0], at_least)

    async def test_an_outage_is_told_to_who_asks_for_nothing_and_once(self) -> None:
        tries: list[None] = []
        # Nothing ever listens on port 1 of this machine.
        client = Client("http://127.0.0.1:1", token="ada", on_state=lambda state: tries.append(None))
        with self.assertLogs("rivulet_client", "WARNING") as told:
            async with client:
                # Each try is two states.
                await self.until(lambda: len(tries) >= 8)
        self.assertEqual(len(told.records), 1)
        self.assertIn("can't connect to ws://127.0.0.1:1/api/v1/ws", told.records[0].getMessage())

    async def test_what_must_not_come_again_stops_with_its_reason(self) -> None:
        for code, reason, meaning in [
            (1000, "", "UNAVAILABLE"),
            (1008, "flood", "RATE_LIMITED"),
            (4403, "origin", "FORBIDDEN"),
            (4429, "replaced", "RATE_LIMITED"),
            (4401, "", "UNAUTHORIZED"),
        ]:

            async def closes(router: Router, code: int = code, reason: str = reason) -> None:
                await router.connected()
                await router.socket.close(code, reason)

            client = await self.client(closes)
            reader = client.events("*")
            async with client:
                with self.assertRaises(RivuletError) as raised:
                    await anext(reader)
                self.assertEqual((raised.exception.code, client.state), (meaning, "stopped"), code)
                self.assertIn(reason, raised.exception.message)

    async def test_answers_of_http_are_understood(self) -> None:
        def answer(status: int) -> Response:
            return Response(status, "", Headers(), b"")

        client = await self.client(silent, refuse=[answer(503), answer(502)])
        async with client:
            await client.ready()
        client = await self.client(silent, refuse=[answer(404)])
        async with client:
            with self.assertRaises(RivuletError) as raised:
                await client.ready()
            self.assertIn("404", raised.exception.message)

    async def test_broken_frames_are_told_and_break_nothing(self) -> None:
        async def script(router: Router) -> None:
            await router.connected()
            for text in ["no JSON", "[1]", '{"type":"gap","data":{}}', '{"type":"news","data":{}}']:
                await router.socket.send(text)
            await router.book(11)
            await router.socket.wait_closed()

        client = await self.client(script)
        reader = client.events("book.*")
        async with client:
            self.assertEqual((await anext(reader)).seq, 11)
        codes = [error.code for error in self.errors if isinstance(error, RivuletError)]
        self.assertEqual(codes, ["INVALID_JSON", "INVALID_MESSAGE", "INVALID_MESSAGE"])

    async def test_an_event_of_an_earlier_schema_comes_with_its_raw_data(self) -> None:
        old = {"book_id": 7, "title": "of another time"}

        async def script(router: Router) -> None:
            await router.connected()
            frame = {"type": "book.created", "seq": 11, "time": "2026-01-01T00:00:00Z", "data": old}
            await router.socket.send(json.dumps(frame))
            await router.book(12)
            await router.socket.wait_closed()

        told: list[UnknownEvent] = []
        client = await self.client(script, on_unknown=told.append)
        reader = client.events("book.*")
        async with asyncio.timeout(60), client:
            first, second = await anext(reader), await anext(reader)
        assert isinstance(first, UnknownEvent)
        self.assertEqual((first.type, first.seq, first.data), ("book.created", 11, old))
        self.assertEqual(told, [first])
        self.assertNotIsInstance(second, UnknownEvent)
        self.assertEqual(self.errors, [])

    async def test_a_hook_that_raises_is_told_and_changes_nothing(self) -> None:
        async def script(router: Router) -> None:
            await router.connected()
            gap = {"stream": "S@1", "from_seq": 10, "to_seq": 20, "reason": "evicted"}
            await router.say("gap", gap)
            await router.book(21)
            await router.socket.wait_closed()

        def fails(_: object) -> None:
            raise KeyError("mine")

        client = await self.client(script, on_gap=fails)
        async with client:
            self.assertEqual((await anext(client.events("*"))).seq, 21)
        self.assertEqual([type(error) for error in self.errors], [KeyError])


async def _connected(router: Router, most: int) -> None:
    await router.connected(most=most)
    while True:
        frame = await router.heard()
        await router.say(f"{frame['type']}d", {"events": frame["events"], "seq": 10}, id=frame["id"])


def _noted(waits: list[float], wait: Any) -> Any:
    waits.append(wait)
    return wait


if __name__ == "__main__":
    unittest.main()
