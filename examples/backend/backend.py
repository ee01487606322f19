#!/usr/bin/env python3
"""An example backend: it answers two commands and publishes events. What it does is in library.py.

pip install 'rivulet-client[nats]'
python examples/backend/backend.py [--users ada,grace,linus --every 2]
"""

import argparse
import asyncio
import logging
import signal

from library import Library
from nats.errors import Error as NatsError

from rivulet_client import CreateBlob, ProcessBlob
from rivulet_client.nats import Backend, Publisher, connect

log = logging.getLogger("backend")


async def serve(arguments: argparse.Namespace) -> None:
    """Answers until the connection is lost for good. OSError or NatsError: there is no NATS yet."""
    lost = asyncio.Event()

    async def closed() -> None:
        lost.set()

    async def faulty(error: Exception) -> None:
        log.warning("NATS: %r", error)

    # RIVULET_NATS_URL, or the nats-server that the router started itself.
    async with await connect(
        name="example-backend",
        # About 10 s; then it is looked up again, as a restarted router's nats-server has another port.
        max_reconnect_attempts=10,
        reconnect_time_wait=1,
        closed_cb=closed,
        error_cb=faulty,
    ) as nats:
        library = Library(Publisher(nats), arguments.failures)
        backend = Backend(nats, queue="example-backend")
        backend.command(CreateBlob)(library.create_blob)
        backend.command(ProcessBlob)(library.process_blob)
        try:
            async with backend:
                if arguments.users:
                    library.go_on(library.live(arguments.users, arguments.every))
                log.info("ready")
                await lost.wait()
        finally:
            library.stop()


async def main(arguments: argparse.Namespace) -> None:
    main_task = asyncio.current_task()
    assert main_task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, main_task.cancel)
    while True:
        try:
            await serve(arguments)
        except (OSError, ValueError, NatsError) as error:
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
