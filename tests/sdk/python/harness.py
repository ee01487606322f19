"""Real nats-servers and routers of a test's own, on free ports, with their own data; gone with the test."""

import asyncio
import base64
import ctypes
import hashlib
import hmac
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
from nats.js import JetStreamContext

from rivulet_client import Client, Reader, escape_user_id

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(
    os.environ.get("ROUTER_BINARY")
    or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "rivulet"
)
NATS_SERVER = ROOT / ".tools" / "bin" / "nats-server"
SECRET = "a-secret-of-the-tests-of-the-python-sdk"
# Seconds; generous, as they only end what hangs.
LIMIT = 120


class Live(unittest.IsolatedAsyncioTestCase):
    """A test on real parts. What it starts is ended with it."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="rivulet-sdk-")))

    async def asyncSetUp(self) -> None:
        # Its debugging would print each step of the tests themselves that takes 100 ms.
        asyncio.get_running_loop().set_debug(False)

    def nats(self) -> "Nats":
        """A nats-server with JetStream."""
        server = Nats(self.directory / "nats")
        self.addCleanup(server.process.end)
        return server

    def router(
        self, server: "Nats", *, dev: bool = True, port: int | None = None, **settings: str
    ) -> "Router":
        """A router, ready; settings are variables without their RIVULET_."""
        router = Router(server, dev, port or free_port(), self.directory, settings)
        self.addCleanup(lambda: router.process.end())
        return router

    async def backend(self, server: "Nats") -> "Backend":
        """A connection of a backend."""
        connection = await nats.connect(server.url)
        self.addAsyncCleanup(connection.close)
        return Backend(connection, connection.jetstream())

    async def client(self, router: "Router", token: Any = "ada", **options: Any) -> Client:
        """A client that is connected."""
        client = Client(router.url, token=token, **options)
        await self.enterAsyncContext(client)
        await soon(client.ready())
        return client


class Process:
    """A started program with a log."""

    def __init__(
        self, command: list[str | Path], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,
            )

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._popen.kill()
        self._popen.wait()

    def end(self) -> None:
        self.kill()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while not holds():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not {what}:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)


class Nats:
    """A nats-server with JetStream."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", directory / "store"]
        self.process = Process(command, directory / "log")
        self.process.wait_until("answering", lambda: _accepts(port))


class Router:
    """A router on a port of its own, that can be ended and started again."""

    _count = itertools.count()

    def __init__(self, server: Nats, dev: bool, port: int, directory: Path, settings: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        number = next(self._count)
        self._log = directory / f"router-{number}.log"
        self._command: list[str | Path] = [BINARY, "serve", *(["--dev"] if dev else [])]
        outside = {key: value for key, value in os.environ.items() if not key.startswith("RIVULET_")}
        self._environment = outside | {
            "RIVULET_LISTEN": f"127.0.0.1:{port}",
            "RIVULET_ADMIN_LISTEN": "off",
            "RIVULET_DATA_DIR": str(directory / f"router-{number}"),
            "RIVULET_NATS_URL": server.url,
            **({} if dev else {"RIVULET_JWT_SECRET": SECRET}),
            **{f"RIVULET_{key.upper()}": value for key, value in settings.items()},
        }
        self.start()

    def begin(self) -> None:
        """Starts it, and waits for nothing."""
        self.process = Process(self._command, self._log, self._environment)

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        self.begin()
        self.process.wait_until("ready", self._is_ready)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False


class Backend:
    """What publishes events, as any backend does."""

    def __init__(self, connection: Any, stream: JetStreamContext) -> None:
        self.connection = connection
        self.stream = stream

    async def publish(self, event_type: str, data: dict[str, Any], user: str = "ada") -> int:
        """Publishes an event; returns its sequence, once the stream has it."""
        headers = {"Rivulet-User": escape_user_id(user)}
        return (await self.stream.publish(event_type, json.dumps(data).encode(), headers=headers)).seq

    async def book(self, title: str, user: str = "ada") -> int:
        """Publishes a `book.created`."""
        return await self.publish("book.created", {"book_id": "b", "title": title}, user)

    async def answer(self, command: str, reply: Callable[[dict[str, Any]], Any]) -> None:
        """Answers a command: with data, or with what `refusal` makes."""

        async def answer(request: Any) -> None:
            outcome = reply(json.loads(request.data))
            if asyncio.iscoroutine(outcome):
                outcome = await outcome
            await request.respond(json.dumps(outcome if "error" in outcome else {"data": outcome}).encode())

        await self.connection.subscribe(f"command.{command}", cb=answer)
        await self.connection.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def soon(awaited: Awaitable[Any]) -> Any:
    """What comes of it, within the limit."""
    return await asyncio.wait_for(awaited, LIMIT)


async def take(reader: Reader[Any], count: int) -> list[Any]:
    """The next events of a reader."""

    async def taken() -> list[Any]:
        events: list[Any] = []
        while len(events) < count:
            events += await reader.batch(count - len(events))
        return events

    return await soon(taken())


async def until(what: str, holds: Callable[[], Any]) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {LIMIT} s: {what}")
        await asyncio.sleep(0.01)


def token(user: str, seconds: float, **claims: Any) -> str:
    """A token of the tests' secret (HS256)."""
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": user, "exp": int(time.time() + seconds), **claims}]
    signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_base64(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
