"""Sessions: tokens that end, nodes that drain, seats that others take."""

import asyncio
import signal
import unittest
from time import time

from harness import Backend, Live, Router, soon, take, token, until

from rivulet_client import Client, RivuletError


class Tokens(Live):
    async def test_a_token_is_refreshed_before_it_ends_on_the_same_session(self) -> None:
        server = self.nats()
        router, backend = self.router(server, dev=False), await self.backend(server)
        states: list[str] = []
        # The first is refreshed two seconds before it ends.
        tokens = [token("ada", 10), token("ada", 3600)]
        first_ends = time() + 10

        client = await self.client(router, token=lambda: tokens.pop(0), on_state=states.append)
        reader = client.events("book.*")
        await soon(reader.ready())
        await until("the first token has ended", lambda: time() > first_ends)
        self.assertEqual(tokens, [])
        await backend.book("seen")
        (event,) = await take(reader, 1)
        self.assertEqual(event.data.title, "seen")
        self.assertEqual(states, ["connecting", "connected"])

    async def test_a_callback_that_fails_is_told_and_asked_again(self) -> None:
        server = self.nats()
        router = self.router(server, dev=False)
        errors: list[Exception] = []
        brought: list[str | Exception] = [OSError("no network"), "not a token", token("ada", 3600)]

        def bring() -> str:
            outcome = brought.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        client = await self.client(router, token=bring, on_error=errors.append)
        self.assertEqual(client.state, "connected")
        self.assertEqual(
            [error.code for error in errors if isinstance(error, RivuletError)], ["UNAUTHORIZED"]
        )
        self.assertIn("no network", str(errors[0]))

    async def test_a_plain_token_that_ends_stops_the_client(self) -> None:
        server = self.nats()
        router = self.router(server, dev=False)
        # The shortest that outlasts the handshake on this machine.
        for seconds in (2, 4, 8, 16, 32):
            try:
                client = await self.client(router, token=token("ada", seconds))
                break
            except RivuletError as refused:
                self.assertEqual(refused.code, "UNAUTHORIZED")
        reader = client.events("book.*")
        with self.assertRaises(RivuletError) as raised:
            await take(reader, 1)
        self.assertEqual((raised.exception.code, client.state), ("UNAUTHORIZED", "stopped"))
        with self.assertRaises(RivuletError):
            await soon(client.ready())

    async def test_a_token_of_any_characters_is_carried(self) -> None:
        router = self.router(self.nats())
        for user in ["a user of Python", "дельта", "100%&=+"]:
            client = await self.client(router, token=user)
            self.assertEqual(client.state, "connected")


class Draining(Live):
    async def test_a_drained_node_hands_over_without_a_loss_or_a_wait(self) -> None:
        server = self.nats()
        first, second = self.router(server, drain_spread="2s"), self.router(server)
        backend = await self.backend(server)
        balancer = await Balancer.start(first)
        self.addAsyncCleanup(balancer.close)
        states: list[str] = []
        async with Client(balancer.url, token="ada", on_state=states.append) as client:
            reader = client.events("book.*")
            await soon(reader.ready())
            published: list[str] = []
            over = asyncio.Event()
            publishing = asyncio.create_task(_publish(backend, published, over))
            await until("it flows", lambda: len(published) >= 20)
            balancer.target = second
            first.process.send(signal.SIGTERM)
            await until("the first node is gone", lambda: not first.process.runs)
            over.set()
            await soon(publishing)
            events = await take(reader, len(published))
            self.assertEqual([event.data.title for event in events], published)
            self.assertEqual(states, ["connecting", "connected"] * 2)


class Seats(Live):
    async def test_a_device_that_comes_again_takes_the_place_until_the_first_asks_for_it(self) -> None:
        server = self.nats()
        router, backend = self.router(server, dev=False), await self.backend(server)
        first = await self.client(router, token=token("ada", 3600), device="laptop")
        reader = first.events("book.*")
        await soon(reader.ready())
        second = await self.client(router, token=token("ada", 3600), device="laptop")
        await until("the first one stops", lambda: first.state == "stopped")
        assert first.error is not None
        self.assertEqual(first.error.code, "RATE_LIMITED")
        self.assertIn("replaced", first.error.message)
        with self.assertRaises(RivuletError):
            await take(reader, 1)

        await backend.book("meanwhile")
        await first.reconnect()
        # The same reader goes on, and has missed nothing.
        await soon(first.ready())
        (event,) = await take(reader, 1)
        self.assertEqual(event.data.title, "meanwhile")
        await until("the second one stops", lambda: second.state == "stopped")

    async def test_too_many_handshakes_come_again_when_they_are_told(self) -> None:
        server = self.nats()
        router = self.router(server, dev=False, limits_connections_per_address="1")
        first = await self.client(router, token=token("ada", 3600))
        errors: list[RivuletError | None] = []
        second = Client(router.url, token=token("ada", 3600), on_state=lambda _: errors.append(second.error))
        async with second:
            await until("it is told to wait", lambda: second.state == "waiting")
            self.assertEqual(second.error and second.error.code, "RATE_LIMITED")
            self.assertTrue(second.error and second.error.retry_after)
            await first.close()
            await soon(second.ready())


class Balancer:
    """Forwards connections to a router, as a load balancer does."""

    def __init__(self, target: Router) -> None:
        self.target = target

    @classmethod
    async def start(cls, target: Router) -> "Balancer":
        balancer = cls(target)
        balancer._server = await asyncio.start_server(balancer._forward, "127.0.0.1", 0)
        balancer.url = f"http://127.0.0.1:{balancer._server.sockets[0].getsockname()[1]}"
        return balancer

    async def close(self) -> None:
        self._server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _publish(backend: Backend, published: list[str], over: asyncio.Event) -> None:
    while not over.is_set():
        title = str(len(published))
        await backend.book(title)
        published.append(title)


if __name__ == "__main__":
    unittest.main()
