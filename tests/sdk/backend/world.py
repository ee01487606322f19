"""A router with a nats-server of its own, users who watch, and a line to NATS that can be cut."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parents[3]
# Generous: the machine may be busy.
WITHIN = 120.0
# In debug mode, which unittest takes, it complains of whatever takes a tenth of a second.
logging.getLogger("asyncio").setLevel(logging.ERROR)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Router:
    """`rivulet serve --dev` in a directory of its own; it starts the nats-server."""

    def __init__(self, **environment: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._data = tempfile.TemporaryDirectory(prefix="rivulet-sdk-")
        self.data_dir = Path(self._data.name)
        self._log = (self.data_dir / "router.log").open("wb")
        self._process = subprocess.Popen(
            [binary(), "serve", "--dev"],
            cwd=self.data_dir,
            env=os.environ
            | {
                "RIVULET_LISTEN": f"127.0.0.1:{port}",
                "RIVULET_ADMIN_LISTEN": "off",
                "RIVULET_DATA_DIR": self._data.name,
                "PATH": f"{ROOT / '.tools/bin'}{os.pathsep}{os.environ['PATH']}",
            }
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._data.cleanup()

    @property
    def nats(self) -> dict[str, str]:
        return json.loads((self.data_dir / "nats.json").read_text())

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.url}/health/ready", timeout=5)
                return
            time.sleep(0.05)
        raise AssertionError(f"no router: {(self.data_dir / 'router.log').read_text()}")


def binary() -> Path:
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/rivulet"


class User:
    """A plain WebSocket client of one user."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, router: Router, user: str, events: str = "*") -> "AsyncIterator[User]":
        query = urllib.parse.urlencode({"token": user, "events": events})
        async with connect(f"{router.url.replace('http', 'ws')}/api/v1/ws?{query}") as socket:
            client = cls(socket)
            await client.next("connected")
            yield client

    async def next(self, wanted: str | None = None) -> dict[str, Any]:
        """The next frame, which is of the wanted type."""
        frame = json.loads(await asyncio.wait_for(self._socket.recv(), WITHIN))
        if wanted is not None and frame["type"] != wanted:
            raise AssertionError(f"not {wanted}: {frame}")
        return frame

    async def nothing(self) -> None:
        """Nothing came: the answer to a ping comes in order with events."""
        await self._socket.send('{"type":"ping"}')
        await self.next("pong")

    async def ask(self, command: str, data: Any, command_id: str | None = None) -> dict[str, Any]:
        await self.send(command, data, command_id)
        return await self.next()

    async def send(self, command: str, data: Any, command_id: str | None = None) -> None:
        frame = {"type": command, "data": data} | ({"id": command_id} if command_id else {})
        await self._socket.send(json.dumps(frame))


class Line:
    """A TCP line to a server, which can lose what the server says or be cut."""

    def __init__(self) -> None:
        self.deaf = False
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str) -> "AsyncIterator[Line]":
        line = cls()
        line._target = urllib.parse.urlsplit(url)
        server = await asyncio.start_server(line._connected, "127.0.0.1", 0)
        line.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield line
        finally:
            server.close()
            line.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, back}

        async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter, answers: bool) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if not (answers and self.deaf):
                        to.write(data)
                        await to.drain()
            to.close()

        # At a test's end the loop cancels what is left.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, back, False), pump(there, writer, True))
        self._writers -= {writer, back}


async def until(what: str, holds: Any) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + WITHIN
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WITHIN:g} s: {what}")
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """A bare nats-server with JetStream, for as long as the block lasts: its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rivulet-nats-") as store:
        server = subprocess.Popen(
            [ROOT / ".tools/bin/nats-server", "-js", "-sd", store, "-a", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + WITHIN
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)
