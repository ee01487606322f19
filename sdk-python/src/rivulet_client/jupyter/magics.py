"""`%rivulet` and `%%on`."""

import argparse
import asyncio
import contextvars
import json
import os
import shlex
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from rivulet_client.errors import RivuletError
from rivulet_client.jupyter.feed import ANSWERS_WITHIN, Feed
from rivulet_client.jupyter.on_cell import OnCell
from rivulet_client.jupyter.show import Area, Table

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

T = TypeVar("T")


class _Parser(argparse.ArgumentParser):
    """One that raises where others end the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}\n{self.format_usage()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or self.format_help())


def _parser() -> _Parser:
    parser = _Parser(prog="%rivulet", add_help=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    connect = actions.add_parser("connect", add_help=False, help="connect to a router")
    connect.add_argument("url", metavar="URL")
    connect.add_argument("--token", default=os.environ.get("RIVULET_TOKEN"), help="else RIVULET_TOKEN")
    connect.add_argument(
        "--families", default="", metavar="NAMES", help="generated modules, with commas between"
    )
    actions.add_parser("disconnect", add_help=False, help="close the connection; the events stay")
    actions.add_parser("status", add_help=False, help="how things are")
    subscribe = actions.add_parser("subscribe", add_help=False, help="receive events")
    subscribe.add_argument("patterns", nargs="+", metavar="PATTERN")
    publish = actions.add_parser("publish", add_help=False, help="publish an event by NATS: TYPE {json}")
    publish.add_argument("type", metavar="TYPE")
    publish.add_argument("--user", action="append", dest="users", metavar="ID", help="for whom; repeatable")
    publish.add_argument("--everyone", action="store_true")
    publish.add_argument("--nats", metavar="URL", help="else as rivulet_client.nats.connect finds it")
    publish.add_argument("--data-dir", metavar="DIR", help="of the router that started its own nats-server")
    events = actions.add_parser("events", add_help=False, help="the last events")
    events.add_argument("most", nargs="?", type=int, default=10, metavar="N")
    actions.add_parser("plot", add_help=False, help="events a second, live")
    return parser


@magics_class
class RivuletMagics(Magics):
    """The magics, and the feed that they work on."""

    feed: Feed | None = None
    """What `%rivulet connect` made."""
    _plot: "asyncio.Task[None] | None" = None

    @no_var_expand
    @line_magic
    def rivulet(self, line: str) -> Any:
        """`%rivulet connect URL --token T`, `subscribe PATTERN…`, `events [N]`, `status`, `plot`,
        `publish TYPE {json} --user ID`, `disconnect`. `$name` stands for a variable, but not in `publish`."""
        data: Any = None
        if line.split()[:1] == ["publish"]:
            line, data = _json_of(line)
        else:
            expand: Callable[[str], str] = self._in().var_expand
            line = expand(line)
        asked = _parser().parse_args(shlex.split(line))
        try:
            return self._do(asked, data)
        except (RivuletError, OSError, ValueError, TypeError) as error:
            raise UsageError(f"%rivulet {asked.action}: {error}") from None

    @no_var_expand
    @cell_magic
    def on(self, line: str, cell: str) -> None:
        """`%%on PATTERN…`: the cell runs for each such event, with `event` in the notebook's namespace.

        Its output comes below it, errors too. Again with the same patterns, it takes the first one's place.
        """
        feed = self._connected()
        patterns = " ".join(line.split())
        try:
            # Refused before there is anything to see.
            feed.subscribe(*patterns.split())
            feed.on(patterns, OnCell(self._in(), patterns, cell))
        except (RivuletError, ValueError) as error:
            raise UsageError(f"%%on {patterns}: {error}") from None

    def disconnect(self) -> None:
        """Closes the connection, if there is one."""
        if self._plot is not None:
            self._plot.cancel()
        if self.feed is not None:
            self.feed.close()

    def _do(self, asked: argparse.Namespace, data: Any) -> Any:
        match asked.action:
            case "connect":
                return self._connect(asked.url, asked.token, asked.families)
            case "disconnect":
                self.disconnect()
            case "status":
                return self._any().status()
            case "subscribe":
                self._connected().subscribe(*asked.patterns)
            case "events":
                return self._any().table(asked.most)
            case "plot":
                self._plot_live(self._connected())
            case _:
                return self._publish(asked, data)
        return None

    def _connect(self, url: str, token: str | None, names: str) -> Feed:
        if token is None:
            raise ValueError("a token is needed: --token, or the variable RIVULET_TOKEN")
        families: list[Any] = []
        for name in filter(None, names.split(",")):
            module: Any = self._in().user_ns.get(name)
            if not hasattr(module, "family"):
                raise ValueError(f"{name} is no generated module: import it first")
            families.append(module.family)
        self.disconnect()
        self.feed = Feed(url, token, families)
        return self.feed

    def _publish(self, asked: argparse.Namespace, data: Any) -> Table:
        from nats.errors import Error as NatsError

        from rivulet_client.nats import Published, Publisher, connect

        families: Sequence[Any] = [] if self.feed is None else self.feed.families

        faults: list[str] = []

        async def faulty(error: Exception) -> None:
            faults.append(str(error))

        async def publish() -> Published:
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    nats = await connect(asked.nats, data_dir=asked.data_dir, error_cb=faulty)
            except (TimeoutError, NatsError):
                why = f": {faults[-1]}" if faults else ""
                raise RivuletError("UNAVAILABLE", f"NATS can't be reached{why}") from None
            async with nats:
                publisher = Publisher(nats, families=families, deadline=10.0)
                return await publisher.publish(
                    data, users=asked.users, everyone=asked.everyone, event_type=asked.type
                )

        stored = _in_a_thread(publish())
        return Table(("", ""), [("stream", stored.stream), ("seq", stored.seq)])

    def _plot_live(self, feed: Feed) -> None:
        if self._plot is not None:
            self._plot.cancel()
        area = Area(feed.rates.svg(time.monotonic()))

        async def draw() -> None:
            while not feed.closed:
                await asyncio.sleep(1)
                area.show(feed.rates.svg(time.monotonic()))

        # In no cell's name: what that shows later, not every front end takes.
        loop = asyncio.get_running_loop()
        self._plot = loop.create_task(draw(), context=contextvars.Context())

    def _in(self) -> "InteractiveShell":
        assert self.shell is not None
        return self.shell

    def _any(self) -> Feed:
        if self.feed is None:
            raise UsageError("not connected: %rivulet connect http://127.0.0.1:8010 --token …")
        return self.feed

    def _connected(self) -> Feed:
        feed = self._any()
        if feed.closed:
            raise UsageError("disconnected: %rivulet connect again")
        return feed


def _json_of(line: str) -> tuple[str, Any]:
    """Takes the JSON object out of a line."""
    start = line.find("{")
    if start < 0:
        raise UsageError("%rivulet publish TYPE {json} --user ID: the JSON object is missing")
    try:
        data, end = json.JSONDecoder().raw_decode(line, start)
    except ValueError as error:
        raise UsageError(f"%rivulet publish: not JSON: {error}") from None
    return f"{line[:start]} {line[end:]}", data


def _in_a_thread(work: "Coroutine[Any, Any, T]") -> T:
    """Runs a coroutine in a thread and waits for it: in the kernel's own one a loop runs already."""
    outcome: list[T] = []
    fault: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            fault.append(error)

    thread = threading.Thread(target=run, name="rivulet-publish")
    thread.start()
    thread.join()
    if fault:
        raise fault[0]
    return outcome[0]
