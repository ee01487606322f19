"""`python -m rivulet_client tail`: print events as they come, for those without the binary."""

import argparse
import asyncio
import os
import sys
from typing import TextIO

from rivulet_client.client import Client
from rivulet_client.connection import State
from rivulet_client.errors import InvalidPattern, RivuletError
from rivulet_client.pattern import Pattern

_EXAMPLES = """\
Events go to standard output, everything else to standard error. A connection that breaks is made again, with
the position of the last event; what does not get better by itself exits with 1.

Examples:
  python -m rivulet_client tail http://127.0.0.1:8010 --token ada
  python -m rivulet_client tail https://live.example 'blob.*' 'processor.failed' --json | jq .data
"""


def main() -> int:
    """Runs the command line; returns its exit code."""
    tail = argparse.ArgumentParser(
        prog="python -m rivulet_client",
        description="Connect to a router and print events as they come.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tail.add_argument("command", choices=["tail"], help="what to do")
    tail.add_argument("url", metavar="URL", help="the router, http(s)://host or ws(s)://host")
    tail.add_argument(
        "patterns", metavar="PATTERN", nargs="*", help="which event types, such as blob.* (all by default)"
    )
    tail.add_argument("--token", default=os.environ.get("RIVULET_TOKEN"), help="[env: RIVULET_TOKEN]")
    tail.add_argument("--json", action="store_true", help="print each event as it came, one a line")
    tail.add_argument("--count", type=int, metavar="NUMBER", help="leave after so many events")
    # Patterns may stand before and after the options.
    arguments = tail.parse_intermixed_args()
    if not arguments.token:
        tail.error("--token or RIVULET_TOKEN is needed; a router in development mode takes any user id")
    patterns: list[str] = arguments.patterns or ["*"]
    for text in patterns:
        try:
            Pattern(text)
        except InvalidPattern as error:
            tail.error(f"PATTERN `{text}`: {error}")
    try:
        asyncio.run(_tail(arguments.url, arguments.token, patterns, arguments.json, arguments.count))
    except ValueError as error:
        tail.error(f"URL: {error}")
    except RivuletError as error:
        _say(f"{error.code}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has left. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def _tail(url: str, token: str, patterns: list[str], as_json: bool, count: int | None) -> None:
    client: Client
    told: str | None = None

    def on_state(state: State) -> None:
        nonlocal told
        if state == "connected":
            _say(f"connected, {', '.join(patterns)}")
            told = None
        elif state == "waiting" and client.error is not None and client.error.message != told:
            # The same fault of many tries is said once.
            told = client.error.message
            _say(f"{told}; trying again")

    client = Client(
        url,
        token=token,
        on_state=on_state,
        on_gap=lambda gap: _say(f"a gap ({gap.reason}): after {gap.from_seq}, up to {gap.to_seq}"),
        on_error=lambda error: None if str(error) == told else _say(str(error)),
    )
    async with client:
        left = count
        if as_json:
            async for piece in client.raw(*patterns):
                sys.stdout.buffer.write(piece + b"\n")
                sys.stdout.buffer.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return
        else:
            async for event in client.events(*patterns):
                time = "" if event.time is None else event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
                data = event.data if isinstance(event.data, dict) else event.data.model_dump(mode="json")
                shown = " ".join(f"{name}={value}" for name, value in data.items() if value is not None)
                _say(f"{event.seq or '-'} {time} {event.type} {shown}", sys.stdout)
                left = None if left is None else left - 1
                if left == 0:
                    return


def _say(line: str, where: TextIO | None = None) -> None:
    print(line, file=where or sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
