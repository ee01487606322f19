"""One session kept alive: connected, and connected again after whatever ended it."""

import asyncio
import contextlib
import inspect
import json
import re
import ssl as tls
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from rivulet_client._generated import CLOSE_CODES
from rivulet_client.backoff import Backoff, jittered
from rivulet_client.commands import Commands
from rivulet_client.delivery import Delivery, log
from rivulet_client.errors import RivuletError
from rivulet_client.protocol import SUBPROTOCOL, Decoder
from rivulet_client.session import LONGEST, Ended, Session

State = Literal["connecting", "connected", "waiting", "stopped", "closed"]
"""What a client is doing: `waiting` for its next try, `stopped` until `reconnect` as the router said that it
must not come again by itself."""
Token = str | Callable[[], str | Awaitable[str]]
"""A token, or what brings one: asked at each connect and before the token ends."""

# No close was said.
_LOST = 1006
_PATH = "/api/v1/ws"
_OPEN_WITHIN = 10.0
_CLOSE_WITHIN = 2.0
# The greatest event that a router can be configured to let through, and its frame.
_MOST_BYTES = 65 * 1024 * 1024
# What may stand in a header as it is.
_PLAIN_TOKEN = re.compile("[!-~]+")
# What a close means for which the router gave no error.
_MEANINGS = {
    1008: "RATE_LIMITED",
    1009: "TOO_LARGE",
    4401: "UNAUTHORIZED",
    4403: "FORBIDDEN",
    4429: "RATE_LIMITED",
}


def websocket_url(url: str) -> str:
    """The WebSocket's URL: `http` and `https` count as `ws` and `wss`; without a path it is the protocol's.

    Raises `ValueError` where it is no such URL.
    """
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"`{url}` is not an address of a router, such as https://live.example")
    path = _PATH if parts.path in ("", "/") else parts.path
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))


class Connection:
    """Sees to it that there is a session, until it is closed or the router says not to come again."""

    def __init__(
        self,
        url: str,
        token: Token,
        device: str,
        delivery: Delivery,
        commands: Commands,
        decoder: Decoder[Any],
        ssl: tls.SSLContext | None,
        on_state: Callable[[State], None],
    ) -> None:
        """Not begun. Raises `ValueError` where the URL is none."""
        self.state: State = "connecting"
        self.error: RivuletError | None = None
        self._url = websocket_url(url)
        self._token = token
        self._device = device
        self._delivery = delivery
        self._commands = commands
        self._decoder = decoder
        secure = self._url.startswith("wss:")
        if ssl is not None and not secure:
            raise ValueError("`ssl` is for https:// and wss://")
        self._ssl = ssl or (True if secure else None)
        self._on_state = on_state
        self._backoff = Backoff()
        self._tokens_refused = 0
        self._tries_failed = 0
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Connects, again and again. Ends only by being cancelled."""
        while True:
            self._set("connecting")
            next_try = await self._try()
            self._commands.lost()
            self._wake.clear()
            if isinstance(next_try, RivuletError):
                self.error = next_try
                self._commands.fail_all(next_try)
                self._set("stopped")
                await self._wake.wait()
            elif next_try > 0:
                self._set("waiting")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(LONGEST, next_try))

    def reconnect(self) -> None:
        """Tries again now, where it waits or is stopped."""
        self._wake.set()

    def close(self) -> None:
        """Says that it is over; whoever runs it cancels that."""
        self.error = None
        self._set("closed")

    async def _try(self) -> float | RivuletError:
        """One session, from the token to its end: the seconds until the next, or why there is none."""
        try:
            try:
                token = await self._ask_token()
            except RivuletError as error:
                self.error = error
                self._delivery.report(error)
                return self._backoff.next()
            ended = await self._session(token)
            next_try = self._decide(ended)
            self._tries_failed = self._tries_failed + 1 if ended.lasted is None else 0
            # The first try after an end is often good; of a longer outage one word is enough.
            if self._tries_failed == 2 and self.error is not None and next_try is not self.error:
                self._delivery.report(self.error)
            return next_try
        except Exception as fault:
            log.exception("a fault of the client's own")
            return RivuletError("INTERNAL", f"a fault of the client's own: {fault!r}")

    async def _session(self, token: str) -> Ended:
        """One session from the handshake to its end."""
        asked = self._delivery.wanted()
        url, headers = self._request(token, asked)
        try:
            socket = await connect(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=headers,
                # The watchdog goes by what is heard; a pong can't come while a slow reader has reading stop.
                ping_interval=None,
                open_timeout=_OPEN_WITHIN,
                close_timeout=_CLOSE_WITHIN,
                max_size=_MOST_BYTES,
                ssl=self._ssl,
            )
        except InvalidStatus as refused:
            return _refused_by_http(refused, _shown(self._url))
        except (OSError, EOFError, TimeoutError, InvalidHandshake) as failed:
            why = str(failed) or type(failed).__name__
            return Ended(
                _LOST, error=RivuletError("UNAVAILABLE", f"can't connect to {_shown(self._url)}: {why}")
            )
        try:
            session = Session(
                socket,
                self._delivery,
                self._commands,
                self._decoder,
                asked,
                self._ask_token if callable(self._token) else None,
                self._connected,
            )
            return await session.run()
        finally:
            await socket.close()

    def _connected(self) -> None:
        self._tokens_refused = 0
        self.error = None
        self._set("connected")

    def _request(self, token: str, patterns: list[str]) -> tuple[str, dict[str, str]]:
        """Where to connect to, and with which headers."""
        query = {"device": self._device}
        if patterns:
            query["events"] = ",".join(patterns)
        if (cursor := self._delivery.cursor) is not None:
            query |= {"stream": cursor.stream, "seq": str(cursor.seq)}
        headers: dict[str, str] = {}
        if _PLAIN_TOKEN.fullmatch(token):
            headers["Authorization"] = f"Bearer {token}"
        else:
            query["token"] = token
        parts = urlsplit(self._url)
        added = urlencode(query, quote_via=quote, safe="*>,@")
        return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added)), headers

    async def _ask_token(self) -> str:
        """The token to use now. Raises `RivuletError` where the program brings none."""
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            if inspect.isawaitable(token):
                token = await token
            if isinstance(token, str):
                return token
            raise TypeError(f"it brought {type(token).__name__}, not text")
        except Exception as error:
            raise RivuletError("UNAUTHORIZED", f"the callback of the token failed: {error!r}") from error

    def _decide(self, ended: Ended) -> float | RivuletError:
        """Seconds until the next try, or why there is to be none."""
        error = self.error = ended.error or _meaning(ended)
        retry_after = ended.error.retry_after if ended.error is not None else None
        if ended.lasted is not None:
            if ended.code == _LOST:
                # The network, or a node that died: another one is there at once.
                self._backoff.reset()
            else:
                # What the router itself ends may come again as soon: too slow, overloaded.
                self._backoff.lasted(ended.lasted)
        if ended.goes_on:
            return 0.0
        match CLOSE_CODES.get(ended.code, "resume_with_backoff"):
            case "resume" if ended.lasted is not None:
                return jittered(0.0)
            case "new_token":
                if not callable(self._token):
                    return error
                self._tokens_refused += 1
                return jittered(0.0) if self._tokens_refused == 1 else self._backoff.next()
            case "when_allowed":
                said = _retry_after(ended.reason)
                retry_after = retry_after if said is None else said
                return error if retry_after is None else jittered(retry_after)
            case "no":
                return error
            case _:
                delay = self._backoff.next()
                return delay if retry_after is None else max(delay, jittered(retry_after))

    def _set(self, state: State) -> None:
        self.state = state
        self._on_state(state)


def _meaning(ended: Ended) -> RivuletError:
    """What a close says for which the router gave no error."""
    said = f": {ended.reason}" if ended.reason else ""
    return RivuletError(
        _MEANINGS.get(ended.code, "UNAVAILABLE"), f"the connection ended with {ended.code}{said}"
    )


def _retry_after(reason: str) -> float | None:
    """The seconds that the reason of a close names."""
    try:
        seconds = json.loads(reason)["retry_after"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds <= LONGEST else None


def _refused_by_http(refused: InvalidStatus, url: str) -> Ended:
    """What an answer of HTTP is as a close: of a proxy, or of something that is no router."""
    response = refused.response
    status, after = response.status_code, response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isascii() and after.isdigit() else None
    if status == 429:
        code, meaning = (1013 if retry_after is None else 4429), "RATE_LIMITED"
    elif status == 401:
        code, meaning = 4401, "UNAUTHORIZED"
    elif 400 <= status < 500 and status not in (408, 425):
        code, meaning = 4403, "FORBIDDEN"
    else:
        code, meaning = 1013, "UNAVAILABLE"
    message = f"{url} answered with HTTP {status}, which is no WebSocket: is it the address of a router?"
    return Ended(code, error=RivuletError(meaning, message, retry_after=retry_after))


def _shown(url: str) -> str:
    """The URL without what may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
