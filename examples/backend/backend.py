#!/usr/bin/env python3
"""An example backend: it answers two commands and publishes events. Plain NATS, nothing of Rivulet's.

All that a backend needs to know of Rivulet is in this file:
  - a client's command comes as a NATS request on `command.<name>`, with the header Rivulet-User (who asks;
    the router vouches for it) and, where the client gave an id, Rivulet-Command-Id;
  - an event is published on its type (`blob.created`), with the header Rivulet-User for whom it is.

    pip install nats-py
    python examples/backend/backend.py [--users ada,grace,linus --every 2]
"""

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import uuid
from collections import OrderedDict
from pathlib import Path
from urllib.parse import unquote

import nats
from library import Library, NotStoredError, RefusedError
from nats.errors import Error as NatsError

log = logging.getLogger("backend")

# The answers kept for commands that are asked again, and the work under way at once.
MOST_REPLIES = 10_000
MOST_TASKS = 1_000


class Backend:
    def __init__(self, connection, failures: float):
        self.stream = connection.jetstream()
        self.library = Library(self.publish, self.go_on, failures)
        # By user and command id: a repeat gets the first one's answer, even while that is still being made.
        self.replies: OrderedDict[tuple[str, str], asyncio.Future] = OrderedDict()
        self.tasks: set[asyncio.Task] = set()

    async def asked(self, request) -> None:
        if len(self.tasks) >= MOST_TASKS:
            await respond(request, refusal("BACKEND_UNAVAILABLE", "too much to do", retry_after=5))
        else:
            self.go_on(self.answer(request))

    async def answer(self, request) -> None:
        headers = request.headers or {}
        user, command_id = unescaped(headers.get("Rivulet-User", "")), headers.get("Rivulet-Command-Id")
        if command_id is None:
            reply = await self.run(request.subject, user, request.data)
        else:
            key = (user, command_id)
            if key not in self.replies:
                self.replies[key] = asyncio.ensure_future(self.run(request.subject, user, request.data))
                while len(self.replies) > MOST_REPLIES:
                    self.replies.popitem(last=False)
            reply = await self.replies[key]
        await respond(request, reply)

    async def run(self, subject: str, user: str, payload: bytes) -> dict:
        commands = {
            "command.create_blob": self.library.create_blob,
            "command.process_blob": self.library.process_blob,
        }
        try:
            data = json.loads(payload)
            if not user or not isinstance(data, dict):
                return refusal("INVALID_MESSAGE", "a command is a JSON object and has a user")
            log.info("%s from %s", subject, user)
            return {"data": await commands[subject](user, data)}
        except ValueError:
            return refusal("INVALID_JSON", "the request is not JSON")
        except RefusedError as refused:
            return {"error": refused.reply}
        except NotStoredError:
            return refusal("COMMAND_FAILED", "the event could not be stored")

    async def publish(self, event_type: str, user: str, **data) -> None:
        """Publishes an event for one user, and waits until the stream has it."""
        # One id for all attempts: a second one after a lost acknowledgement isn't stored twice.
        headers = {"Rivulet-User": escaped(user), "Nats-Msg-Id": str(uuid.uuid4())}
        for patience in (0.2, 0.5, 1, 2, 4, None):
            try:
                await self.stream.publish(event_type, json.dumps(data).encode(), headers=headers, timeout=5)
                return
            except (NatsError, TimeoutError) as error:
                # Among these: no stream yet. The router makes it when it starts, maybe after us.
                if patience is None:
                    raise NotStoredError(event_type) from error
                await asyncio.sleep(patience)

    def go_on(self, work) -> None:
        """Runs something beside; what goes wrong with it is logged."""

        def ended(task: asyncio.Task) -> None:
            self.tasks.discard(task)
            if not task.cancelled() and task.exception():
                log.warning("work ended: %r", task.exception())

        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(ended)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


async def respond(request, reply: dict) -> None:
    await request.respond(json.dumps(reply).encode())


def refusal(code: str, message: str, **fields) -> dict:
    return {"error": {"code": code, "message": message, **fields}}


# In Rivulet-User, `[A-Za-z0-9_-]` stand for themselves and every other byte is `=XX`.
def escaped(user_id: str) -> str:
    return re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], user_id.encode()).decode()


def unescaped(user: str) -> str:
    return unquote(user.replace("=", "%"))


def where_nats_is() -> dict:
    """RIVULET_NATS_URL, or what the router wrote about the nats-server that it started itself."""
    if url := os.environ.get("RIVULET_NATS_URL"):
        return {"servers": url}
    file = Path(os.environ.get("RIVULET_DATA_DIR", ".rivulet"), "nats.json")
    found = json.loads(file.read_text())
    return {"servers": found["url"], "user": found["user"], "password": found["password"]}


async def serve(arguments: argparse.Namespace) -> None:
    """Answers until the connection is lost for good. OSError or NatsError: there is no NATS yet."""
    lost = asyncio.Event()

    async def closed() -> None:
        lost.set()

    async def faulty(error: Exception) -> None:
        log.warning("NATS: %r", error)

    connection = await nats.connect(
        **where_nats_is(),
        name="example-backend",
        # About 10 s; then the file is read again, as a restarted router's nats-server has another port.
        max_reconnect_attempts=10,
        reconnect_time_wait=1,
        closed_cb=closed,
        error_cb=faulty,
    )
    backend = Backend(connection, arguments.failures)
    try:
        # A queue group: of several backends, one gets each command.
        for command in ("command.create_blob", "command.process_blob"):
            await connection.subscribe(command, queue="example-backend", cb=backend.asked)
        if arguments.users:
            backend.go_on(backend.library.live(arguments.users, arguments.every))
        log.info("ready")
        await lost.wait()
    finally:
        backend.stop()
        await connection.close()


async def main(arguments: argparse.Namespace) -> None:
    main_task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, main_task.cancel)
    while True:
        try:
            await serve(arguments)
        except (OSError, ValueError, KeyError, NatsError) as error:
            log.info("waiting for NATS: %s", error)
        await asyncio.sleep(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Answers create_blob and process_blob, and publishes events."
    )
    parser.add_argument(
        "--users", type=lambda names: names.split(","), help="also be active for these: ada,grace"
    )
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="how often, on average (2)"
    )
    parser.add_argument(
        "--failures", type=float, default=0.15, metavar="SHARE", help="of all processing (0.15)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    try:
        asyncio.run(main(parse_arguments()))
    except asyncio.CancelledError:
        log.info("ended")
