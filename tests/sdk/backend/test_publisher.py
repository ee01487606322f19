"""What is published reaches those whom it is for, once, as the wire profile says."""

import json
import unittest
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from unittest.mock import patch

from pydantic import ValidationError
from world import Line, Router, User, nats_server

from rivulet_client import (
    BlobDeleted,
    BookCreated,
    BookDeleted,
    Envelope,
    Family,
    InvalidUserId,
    Model,
)
from rivulet_client.nats import NotAllStored, NotStored, Outgoing, Published, Publisher, connect
from rivulet_client.nats import publisher as module

BOOK = BookCreated(book_id="b1")
# As long as an id may be, and whatever could be taken for a wildcard, an escape or a border.
ODD_USERS = ["a.b", "*", ">", "=2A", "ada lovelace", "é😀", "x" * 128, "é" * 64]


class Placed(Model):
    order_id: str


class PlacedEvent(Envelope):
    type: Literal["order.placed"]
    data: Placed


class MovedEvent(Envelope):
    type: Literal["order.moved"]
    data: Placed


class Reaching(unittest.IsolatedAsyncioTestCase):
    router: Router

    @classmethod
    def setUpClass(cls) -> None:
        cls.router = cls.enterClassContext(Router())

    async def asyncSetUp(self) -> None:
        self.nats = await self.enterAsyncContext(await connect(data_dir=self.router.data_dir))
        self.publisher = Publisher(self.nats)

    async def stored(self, published: Published) -> Any:
        return await self.nats.jetstream().get_msg(published.stream, published.seq)

    async def test_one_user_gets_it_and_no_other(self) -> None:
        async with User.of(self.router, "ada") as ada, User.of(self.router, "grace") as grace:
            published = await self.publisher.publish(BOOK, user="ada")
            event = await ada.next("book.created")
            self.assertEqual((event["data"], event["seq"]), ({"book_id": "b1"}, published.seq))
            self.assertFalse(published.duplicate)
            await grace.nothing()
            await ada.nothing()

    async def test_several_users_get_it_once_each(self) -> None:
        async with (
            User.of(self.router, "ada") as ada,
            User.of(self.router, "grace") as grace,
            User.of(self.router, "linus") as linus,
        ):
            await self.publisher.publish(BOOK, users=["ada", "grace", "ada"])
            for user in (ada, grace):
                await user.next("book.created")
                await user.nothing()
            await linus.nothing()

    async def test_everyone_gets_it(self) -> None:
        async with User.of(self.router, "ada") as ada, User.of(self.router, "grace") as grace:
            await self.publisher.publish(BOOK, everyone=True)
            await ada.next("book.created")
            await grace.next("book.created")

    async def test_odd_users_are_escaped(self) -> None:
        async with User.of(self.router, "ada") as ada:
            for name in ODD_USERS:
                async with User.of(self.router, name) as user:
                    await self.publisher.publish(BOOK, user=name)
                    await user.next("book.created")
            for name in ODD_USERS:
                async with User.of(self.router, name) as user:
                    await self.publisher.publish(BOOK, users=ODD_USERS)
                    await user.next("book.created")
            await ada.nothing()

    async def test_times_are_utc_and_what_is_absent_is_not_there(self) -> None:
        noon = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
        published = await self.publisher.publish(
            BlobDeleted(blob_id="b", user_id="someone else", deleted_at=noon), user="ada"
        )
        self.assertEqual(
            (await self.stored(published)).data,
            b'{"blob_id":"b","user_id":"someone else","deleted_at":"2026-01-31T10:00:00.250000Z"}',
        )
        published = await self.publisher.publish(BOOK, user="ada")
        self.assertEqual((await self.stored(published)).data, b'{"book_id":"b1"}')
        with self.assertRaises(ValidationError):
            BlobDeleted(blob_id="b", user_id="u", deleted_at=datetime(2026, 1, 31))

    async def test_headers(self) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        published = await self.publisher.publish(BOOK, user="a b", traceparent=trace, message_id="m-headers")
        message = await self.stored(published)
        self.assertEqual(message.subject, "book.created")
        self.assertEqual(
            message.headers, {"Rivulet-User": "a=20b", "Nats-Msg-Id": "m-headers", "traceparent": trace}
        )

    async def test_the_same_message_id_is_stored_once(self) -> None:
        async with User.of(self.router, "ada") as ada:
            first = await self.publisher.publish(BOOK, user="ada", message_id="m-twice")
            again = await self.publisher.publish(BOOK, user="ada", message_id="m-twice")
            self.assertEqual(again, Published(first.stream, first.seq, duplicate=True))
            await ada.next("book.created")
            await ada.nothing()

    async def test_without_a_message_id_each_is_one(self) -> None:
        first = await self.publisher.publish(BOOK, user="ada")
        second = await self.publisher.publish(BOOK, user="ada")
        self.assertEqual(second.seq, first.seq + 1)

    async def test_mappings_are_checked_where_the_type_is_known(self) -> None:
        async with User.of(self.router, "ada") as ada:
            await self.publisher.publish({"book_id": "b2"}, event_type="book.created", user="ada")
            self.assertEqual((await ada.next("book.created"))["data"], {"book_id": "b2"})
            await self.publisher.publish({"anything": [1, None]}, event_type="book.burnt", user="ada")
            self.assertEqual((await ada.next("book.burnt"))["data"], {"anything": [1, None]})
            with self.assertRaises(ValidationError):
                await self.publisher.publish({"book": 1}, event_type="book.created", user="ada")
            await ada.nothing()

    async def test_what_cannot_be_is_said_before_anything_is_sent(self) -> None:
        class Elsewhere(Model):
            pass

        nowhere: Any = {}
        cases: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
            (ValueError, "exactly one", BOOK, {}),
            (ValueError, "exactly one", BOOK, {"user": "ada", "everyone": True}),
            (ValueError, "exactly one", BOOK, {"user": "ada", "users": ["ada"]}),
            (ValueError, "nobody", BOOK, {"users": []}),
            (TypeError, "there is `user`", BOOK, {"users": "ada"}),
            (InvalidUserId, "not empty", BOOK, {"user": ""}),
            (InvalidUserId, "128 bytes", BOOK, {"users": ["ada", "x" * 129]}),
            (ValueError, "Elsewhere is of no family", Elsewhere(), {"user": "ada"}),
            (TypeError, "only a family's model", nowhere, {"user": "ada"}),
            (TypeError, "book.deleted is BookDeleted", BOOK, {"user": "ada", "event_type": "book.deleted"}),
            (ValueError, "no event type", nowhere, {"user": "ada", "event_type": "book.*"}),
            (ValueError, "no event type", nowhere, {"user": "ada", "event_type": "a.b\r\nPUB x"}),
            (ValueError, "no event type", nowhere, {"user": "ada", "event_type": ".".join("abcdefghi")}),
            (ValueError, "message_id", BOOK, {"user": "ada", "message_id": "m 1"}),
            (ValueError, "traceparent", BOOK, {"user": "ada", "traceparent": "x\r\nRivulet-User: eve"}),
        ]
        before = await self.publisher.publish(BOOK, user="ada")
        for kind, text, data, arguments in cases:
            with self.subTest(text, arguments=arguments), self.assertRaisesRegex(kind, text):
                await self.publisher.publish(data, **arguments)
        good, bad = Outgoing(BOOK, user="ada"), Outgoing(BOOK)
        with self.assertRaisesRegex(ValueError, "exactly one"):
            await self.publisher.publish_many([good, bad])
        self.assertEqual((await self.publisher.publish(BOOK, user="ada")).seq, before.seq + 1)

    async def test_what_is_larger_than_routers_take_is_not_published(self) -> None:
        # With its braces, quotes and name the router takes so many bytes and not one more.
        most = "x" * (256 * 1024 - len('{"book_id":""}'))
        async with User.of(self.router, "ada") as ada:
            await self.publisher.publish(BookCreated(book_id=most), user="ada")
            self.assertEqual((await ada.next("book.created"))["data"]["book_id"], most)
            for event_type in ["book.created", "book.burnt"]:
                with self.assertRaisesRegex(NotStored, "max_event_bytes") as caught:
                    await self.publisher.publish({"book_id": f"{most}x"}, event_type=event_type, user="ada")
                self.assertEqual(caught.exception.code, "TOO_LARGE")
            small = Publisher(self.nats, max_event_bytes=20)
            with self.assertRaises(NotAllStored) as several:
                await small.publish_many(
                    [Outgoing(BOOK, user="ada"), Outgoing(BookCreated(book_id="b" * 20), user="ada")]
                )
            stored, refused = several.exception.outcomes
            self.assertIsInstance(stored, Published)
            self.assertIsInstance(refused, NotStored)
            await ada.next("book.created")
            await ada.nothing()

    async def test_what_is_no_json_is_not_published(self) -> None:
        for data in [{"a": float("nan")}, {"a": [float("inf")]}]:
            with self.subTest(data), self.assertRaisesRegex(ValueError, "no JSON"):
                await self.publisher.publish(data, event_type="book.burnt", user="ada")

    async def test_half_an_emoji_is_published_as_it_is(self) -> None:
        async with User.of(self.router, "ada") as ada:
            await self.publisher.publish(BookCreated(book_id="\ud83d"), user="ada")
            self.assertEqual((await ada.next("book.created"))["data"], {"book_id": "\ud83d"})
            await self.publisher.publish({"\ud83d": "\ude00"}, event_type="book.burnt", user="ada")
            self.assertEqual((await ada.next("book.burnt"))["data"], {"\ud83d": "\ude00"})

    async def test_many_are_stored_in_their_order(self) -> None:
        events = [Outgoing(BookCreated(book_id=f"b{number}"), user="ada") for number in range(1_000)]
        async with User.of(self.router, "ada") as ada, User.of(self.router, "grace") as grace:
            published = await self.publisher.publish_many(events, in_flight=50)
            for number, stored in enumerate(published):
                event = await ada.next("book.created")
                self.assertEqual((event["data"]["book_id"], event["seq"]), (f"b{number}", stored.seq))
            await grace.nothing()

    async def test_no_more_are_in_flight_than_asked_for(self) -> None:
        under_way, most = 0, 0
        publish = self.publisher._stream.publish

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await publish(*arguments, **options)
            finally:
                under_way -= 1

        with patch.object(self.publisher._stream, "publish", counted):
            await self.publisher.publish_many([Outgoing(BOOK, user="ada")] * 100, in_flight=7)
        self.assertEqual(most, 7)

    async def test_of_many_all_that_failed_are_told(self) -> None:
        large = BookCreated(book_id="b", title="x" * (self.nats.max_payload + 1))
        events = [
            Outgoing(large if number in (1, 3) else BOOK, user="ada", message_id=f"m-many-{number}")
            for number in range(5)
        ]
        with self.assertRaises(NotAllStored) as caught:
            await self.publisher.publish_many(events)
        self.assertEqual(
            [(fault.code, fault.message_id) for fault in caught.exception.exceptions],
            [("TOO_LARGE", "m-many-1"), ("TOO_LARGE", "m-many-3")],
        )
        kinds = [type(outcome) for outcome in caught.exception.outcomes]
        self.assertEqual(kinds, [Published, NotStored, Published, NotStored, Published])

    async def test_a_users_own_family(self) -> None:
        family = Family(events={"order.placed": PlacedEvent}, commands={})
        with self.assertRaises(NotStored) as caught:
            # No source of this router takes it, so no stream does.
            await Publisher(self.nats, families=[family]).publish(
                Placed(order_id="o"), user="u", deadline=0.3
            )
        self.assertEqual(caught.exception.code, "UNAVAILABLE")
        self.assertIn("order.placed", str(caught.exception))

        ambiguous = Family(events={"order.placed": PlacedEvent, "order.moved": MovedEvent}, commands={})
        with self.assertRaisesRegex(ValueError, "Placed is the data of order.placed and order.moved"):
            await Publisher(self.nats, families=[ambiguous]).publish(Placed(order_id="o"), user="u")


class BySubject(unittest.IsolatedAsyncioTestCase):
    async def test_the_last_token_is_the_user(self) -> None:
        sources = '[{subject = "book.*.*", audience = "token:2"}]'
        with Router(RIVULET_SOURCES=sources) as router:
            async with (
                await connect(data_dir=router.data_dir) as nats,
                User.of(router, "ada") as ada,
                User.of(router, "a.b >") as odd,
            ):
                publisher = Publisher(nats, audience="token")
                await publisher.publish(BOOK, user="ada")
                await ada.next("book.created")
                await odd.nothing()
                published = await publisher.publish(BookDeleted(book_id="b"), users=["a.b >"])
                await odd.next("book.deleted")
                await ada.nothing()
                message = await nats.jetstream().get_msg(published.stream, published.seq)
                self.assertEqual(message.subject, "book.deleted.a=2Eb=20=3E")
                await publisher.publish(BOOK, everyone=True)
                for user in (ada, odd):
                    await user.next("book.created")
                with self.assertRaisesRegex(ValueError, "one user"):
                    await publisher.publish(BOOK, users=["ada", "grace"])


class Trying(unittest.IsolatedAsyncioTestCase):
    """A bare nats-server, and a line to it that loses acknowledgements."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.url = cls.enterClassContext(nats_server())

    async def asyncSetUp(self) -> None:
        self.line = await self.enterAsyncContext(Line.to(self.url))
        # Seconds that one attempt waits: what is lost is tried again soon.
        self.enterContext(patch.object(module, "_ATTEMPT", 0.5))
        # As a library it logs what it can't hand to anyone, which here is meant.
        self.enterContext(patch("nats.aio.client._logger"))
        options: dict[str, Any] = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
        self.nats = await self.enterAsyncContext(await connect(self.line.url, **options))
        self.direct = await self.enterAsyncContext(await connect(self.url))
        self.publisher = Publisher(self.nats)

    async def stream(self, subjects: Sequence[str]) -> None:
        name = self.id().rpartition(".")[2]
        await self.direct.jetstream().add_stream(name=name, subjects=list(subjects))
        self.addAsyncCleanup(self.direct.jetstream().delete_stream, name)

    async def messages(self) -> int:
        return (await self.direct.jetstream().stream_info(self.id().rpartition(".")[2])).state.messages

    async def test_a_lost_acknowledgement_is_asked_for_again_and_stored_once(self) -> None:
        await self.stream(["book.*"])
        await self.publisher.publish(BOOK, everyone=True)
        self.line.deaf = True
        publish, attempts = self.publisher._stream.publish, 0

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 2:
                # The first was stored, and its acknowledgement lost.
                self.assertEqual(await self.messages(), 2)
                self.line.deaf = False
            return await publish(*arguments, **options)

        with patch.object(self.publisher._stream, "publish", counted):
            published = await self.publisher.publish(BOOK, everyone=True)
        self.assertTrue(published.duplicate)
        self.assertEqual((attempts, await self.messages()), (2, 2))

    async def test_a_cut_line_is_outlived(self) -> None:
        await self.stream(["book.*"])
        events = [Outgoing(BookCreated(book_id=f"b{number}"), everyone=True) for number in range(2_000)]
        publish, attempts = self.publisher._stream.publish, 0

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts in (500, 1_200):
                self.line.cut()
            return await publish(*arguments, **options)

        with patch.object(self.publisher._stream, "publish", counted):
            published = await self.publisher.publish_many(events, in_flight=20)
        self.assertEqual(len({stored.seq for stored in published}), 2_000)
        self.assertEqual(await self.messages(), 2_000)

    async def test_an_outcome_that_is_unknown_says_so(self) -> None:
        await self.stream(["book.*"])
        await self.publisher.publish(BOOK, everyone=True)
        self.line.deaf = True
        with self.assertRaises(NotStored) as caught:
            await self.publisher.publish(BOOK, everyone=True, deadline=0.4)
        self.assertEqual(caught.exception.code, "OUTCOME_UNKNOWN")
        self.line.deaf = False
        again = await self.publisher.publish(BOOK, everyone=True, message_id=caught.exception.message_id)
        self.assertTrue(again.duplicate)

    async def test_a_stream_that_comes_late_is_waited_for(self) -> None:
        publish, attempts = self.publisher._stream.publish, 0

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                await self.stream(["book.*"])
            return await publish(*arguments, **options)

        with patch.object(self.publisher._stream, "publish", counted):
            published = await self.publisher.publish(BOOK, everyone=True)
        self.assertEqual((attempts, published.seq), (3, 1))

    async def test_no_stream_and_a_closed_connection_are_unavailable(self) -> None:
        for why in ("no stream", "the connection is closed"):
            with self.subTest(why), self.assertRaisesRegex(NotStored, why) as caught:
                await self.publisher.publish(BOOK, everyone=True, deadline=0.3)
            self.assertEqual(caught.exception.code, "UNAVAILABLE")
            await self.nats.close()

    async def test_what_the_stream_refuses_is_not_tried_again(self) -> None:
        name = self.id().rpartition(".")[2]
        await self.direct.jetstream().add_stream(name=name, subjects=["book.*"], max_msg_size=20)
        self.addAsyncCleanup(self.direct.jetstream().delete_stream, name)
        with self.assertRaisesRegex(NotStored, "refused it: message size exceeds") as caught:
            await self.publisher.publish(BookCreated(book_id="b" * 100), everyone=True)
        self.assertEqual(caught.exception.code, "INTERNAL")


class Connecting(unittest.IsolatedAsyncioTestCase):
    async def test_where_nats_is(self) -> None:
        with nats_server() as url:
            with patch.dict("os.environ", {"RIVULET_NATS_URL": f"{url}, {url}"}):
                async with await connect() as nats:
                    self.assertTrue(nats.is_connected)
            async with await connect(url, name="by hand") as nats:
                self.assertTrue(nats.is_connected)

    async def test_without_any_the_error_names_all(self) -> None:
        with (
            patch.dict("os.environ", {"RIVULET_DATA_DIR": "/nowhere"}, clear=True),
            self.assertRaisesRegex(FileNotFoundError, "RIVULET_NATS_URL.*/nowhere/nats.json"),
        ):
            await connect()

    async def test_credentials_of_the_environment(self) -> None:
        given: dict[str, Any] = {}

        async def noted(**options: Any) -> None:
            given.update(options)

        variables = {
            "RIVULET_NATS_URL": "nats://a:4222",
            "RIVULET_NATS_USER": "u",
            "RIVULET_NATS_PASSWORD": "p",
        }
        with patch.dict("os.environ", variables), patch("nats.connect", noted):
            await connect(name="n")
        self.assertEqual(
            json.loads(json.dumps(given)),
            {"servers": ["nats://a:4222"], "user": "u", "password": "p", "name": "n"},
        )


if __name__ == "__main__":
    unittest.main()
