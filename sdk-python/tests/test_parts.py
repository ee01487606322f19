"""The client's parts that need no socket."""

import asyncio
import json
import unittest
from typing import Any

from rivulet_client import Client, Cursor, Gap, InvalidPattern, Pattern, RivuletError, SyncClient, decode
from rivulet_client.backoff import MOST, Backoff
from rivulet_client.commands import MOST_IN_FLIGHT, Commands, Pace, Pending
from rivulet_client.connection import websocket_url
from rivulet_client.delivery import Delivery
from rivulet_client.pattern import cover
from rivulet_client.protocol import Decoder, parse, split
from rivulet_client.reader import Queue
from rivulet_client.sync import Options


class Covering(unittest.TestCase):
    def test_the_fewest_patterns_cover_all(self) -> None:
        for patterns, expected in [
            ([], []),
            (["blob.created", "blob.*", "blob.created"], ["blob.*"]),
            (["blob.*", "blob.created", "book.*"], ["blob.*", "book.*"]),
            (["blob.*", ">", "*"], ["*"]),
            (["blob.>", "blob.*.more", "blob.*"], ["blob.>"]),
        ]:
            covering = [pattern.text for pattern in cover(map(Pattern, patterns))]
            self.assertEqual(covering, expected, patterns)


class Waiting(unittest.TestCase):
    def test_waits_double_up_to_a_bound_and_begin_anew_after_a_session_that_lasted(self) -> None:
        backoff = Backoff()
        bounds: list[float] = []
        for _ in range(9):
            bounds.append(backoff.bound)
            self.assertLessEqual(backoff.next(), bounds[-1])
        self.assertEqual(bounds, [0.5, 1, 2, 4, 8, 16, MOST, MOST, MOST])
        backoff.lasted(1)
        self.assertEqual(backoff.bound, MOST)
        backoff.lasted(MOST)
        self.assertEqual(backoff.bound, 0.5)

    def test_the_pace_is_learned_in_a_few_refusals(self) -> None:
        pace, tokens, now, refusals = Pace(), 3.0, 0.0, 0
        for _ in range(50):
            # A router that lets three through at once, and ten a second from then on.
            wait = pace.wait(now)
            now, tokens = now + wait, min(3.0, tokens + 10 * wait)
            pace.sent(now)
            if tokens >= 1:
                tokens -= 1
            else:
                refusals += 1
                pace.refused(now, now, (1 - tokens) / 10)
        self.assertLessEqual(refusals, 4)


class Addresses(unittest.TestCase):
    def test_urls_are_those_of_the_protocol(self) -> None:
        for url, expected in [
            ("http://127.0.0.1:8010", "ws://127.0.0.1:8010/api/v1/ws"),
            ("https://live.example/", "wss://live.example/api/v1/ws"),
            ("wss://live.example/ws?zone=a", "wss://live.example/ws?zone=a"),
        ]:
            self.assertEqual(websocket_url(url), expected)
        for url in ["live.example", "ftp://live.example", "http://"]:
            with self.assertRaises(ValueError):
                websocket_url(url)


class Options_(unittest.TestCase):  # noqa: N801
    def test_the_facade_takes_all_that_the_client_takes(self) -> None:
        import inspect

        named = set(inspect.signature(Client.__init__).parameters) - {"self", "url", "token", "families"}
        self.assertEqual(set(Options.__annotations__), named)
        missing = [
            name for name in vars(Client) if not name.startswith("_") and not hasattr(SyncClient, name)
        ]
        self.assertEqual(missing, ["sync"])

    def test_wrong_options_are_refused(self) -> None:
        for wrong in [{"buffer": 0}, {"command_queue": 0}, {"cursor": Cursor("", 1)}, {"cursor": ("S", -1)}]:
            with self.assertRaises(ValueError):
                Client("http://127.0.0.1:1", token="ada", **wrong)  # type: ignore[arg-type]
        with self.assertRaises(InvalidPattern):
            Client("http://127.0.0.1:1", token="ada").events("blob*")


class Splitting(unittest.TestCase):
    def test_the_bytes_of_each_object_stay_as_they_came(self) -> None:
        pieces = [
            b'{"type":"a.b","data":{"text":"[1, 2] \\" }"}}',
            '{ "type": "a.ü" , "data": {"n": 1.50} }'.encode(),
        ]
        for frame in [b"[" + b",".join(pieces) + b"]", b" [ " + b" , ".join(pieces) + b" ] "]:
            self.assertEqual(split(frame), pieces)
            self.assertEqual(parse(frame), [json.loads(piece) for piece in pieces])
        self.assertEqual(split(b"[]"), [])
        self.assertEqual(split(pieces[0]), pieces[:1])
        self.assertEqual(decode("[]"), [])


def event(seq: int | None, event_type: str = "book.created") -> dict[str, Any]:
    fields = {"type": event_type, "data": {"book_id": "b", "title": str(seq)}}
    return fields if seq is None else fields | {"seq": seq}


class Delivering(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.errors: list[Exception] = []
        self.delivery = Delivery(Decoder(), None, None, self.errors.append)
        self.delivery.cursor = Cursor("S@1", 10)

    def queue(self, pattern: str = "book.*", bound: int = 100, raw: bool = False) -> Queue[Any]:
        return self.delivery.add([Pattern(pattern)], raw, bound)

    async def test_what_was_seen_is_dropped_and_what_has_no_sequence_is_not(self) -> None:
        queue = self.queue()
        for seq in [9, 10, 11, 11, None, None, 13]:
            await self.delivery.event(event(seq), b"")
        self.assertEqual([queue.take().data.title for _ in range(len(queue))], ["11", "None", "None", "13"])
        self.assertEqual(self.delivery.cursor, Cursor("S@1", 13))

    async def test_the_cursor_goes_back_only_by_a_gap(self) -> None:
        self.delivery.passed(5)
        self.delivery.passed(None)
        self.assertEqual(self.delivery.cursor, Cursor("S@1", 10))
        self.delivery.passed(12)
        self.assertEqual(self.delivery.cursor, Cursor("S@1", 12))
        await self.delivery.gap(Gap(stream="S@2", from_seq=12, to_seq=3, reason="epoch_changed"))
        self.assertEqual(self.delivery.cursor, Cursor("S@2", 3))

    async def test_an_event_that_cannot_be_read_is_told_and_passed(self) -> None:
        queue, raw = self.queue(), self.queue(raw=True)
        await self.delivery.event({"type": "book.created", "seq": 11, "data": [7]}, b"bytes")
        await self.delivery.event({"type": "book.created", "seq": -1, "data": {}}, b"")
        self.assertEqual((len(queue), raw.take()), (0, b"bytes"))
        fields = [error.field for error in self.errors if isinstance(error, RivuletError)]
        self.assertEqual(fields, ["data", "seq"])
        self.assertEqual(self.delivery.cursor, Cursor("S@1", 11))

    async def test_an_event_given_up_for_want_of_room_is_in_no_queue(self) -> None:
        roomy, full = self.queue(), self.queue(bound=2)
        for seq in [11, 12]:
            await self.delivery.event(event(seq), b"")
        waiting = asyncio.create_task(self.delivery.event(event(13), b""))
        await asyncio.sleep(0)
        self.assertTrue(self.delivery.waits_for_room)
        waiting.cancel()
        await asyncio.wait([waiting])
        self.assertEqual((len(roomy), len(full), self.delivery.cursor), (2, 2, Cursor("S@1", 12)))

    async def test_room_comes_by_taking_by_leaving_and_while_a_command_is_asked(self) -> None:
        for make_room in ["take", "leave", "ask"]:
            queue = self.queue(bound=2)
            start = self.delivery.cursor.seq if self.delivery.cursor else 0
            for seq in [start + 1, start + 2]:
                await self.delivery.event(event(seq), b"")
            waiting = asyncio.create_task(self.delivery.event(event(start + 3), b""))
            await asyncio.sleep(0)
            self.assertFalse(waiting.done())
            match make_room:
                case "take":
                    queue.take()
                case "leave":
                    queue.abandon()
                case _:
                    self.delivery.asking = lambda: True
                    self.delivery.recheck()
            async with asyncio.timeout(120):
                await waiting
            queue.abandon()

    async def test_what_is_kept_never_passes_what_is_not_done(self) -> None:
        first, second = self.queue(), self.queue("book.created")
        for seq in [11, 12, 13]:
            await self.delivery.event(event(seq), b"")
        self.assertEqual(self.delivery.done_with, Cursor("S@1", 10))
        first.take_all(3)
        second.take()
        second.take()
        # The first works on all three, the second on its second.
        self.assertEqual(self.delivery.done_with, Cursor("S@1", 10))
        first.done()
        self.assertEqual(self.delivery.done_with, Cursor("S@1", 11))
        second.take()
        second.done()
        self.assertEqual(self.delivery.done_with, Cursor("S@1", 13))


class Asking(unittest.IsolatedAsyncioTestCase):
    def pending(self, name: str) -> Pending:
        return Pending(name, name, asyncio.get_running_loop().create_future())

    async def test_so_many_are_in_flight_and_after_a_loss_they_are_first_again(self) -> None:
        commands = Commands(100, lambda: None)
        for number in range(MOST_IN_FLIGHT + 2):
            commands.add(self.pending(str(number)))
        sent = [(await commands.next()).id for _ in range(MOST_IN_FLIGHT)]
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(commands.next(), 0.01)
        self.assertTrue(commands.answered("3", {}))
        self.assertFalse(commands.answered("3", {}))
        self.assertFalse(commands.answered(None, {}))
        self.assertEqual((await commands.next()).id, str(MOST_IN_FLIGHT))
        commands.lost()
        again = [(await commands.next()).id for _ in range(MOST_IN_FLIGHT)]
        self.assertEqual(again, [*(name for name in sent if name != "3"), str(MOST_IN_FLIGHT)])

    async def test_one_id_is_asked_once_at_a_time(self) -> None:
        commands = Commands(100, lambda: None)
        first = self.pending("a")
        commands.add(first)
        with self.assertRaises(RivuletError):
            commands.add(self.pending("a"))
        commands.forget(first)
        commands.add(self.pending("a"))


if __name__ == "__main__":
    unittest.main()
