"""Where NATS is, as the router itself is told."""

import json
import os
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client


async def connect(
    url: str | list[str] | None = None, *, data_dir: str | Path | None = None, **options: Any
) -> Client:
    """Connects to NATS; end it with `async with`, `drain()` or `close()`.

    Where to, is the first of these that is there: `url` (`nats://host:port`, or several); the variable
    RIVULET_NATS_URL (with commas between several), with RIVULET_NATS_USER and RIVULET_NATS_PASSWORD,
    RIVULET_NATS_TOKEN or RIVULET_NATS_CREDS_FILE beside it; what a router wrote of the nats-server that it
    started itself, in its `data_dir` (else RIVULET_DATA_DIR, else `.rivulet`).

    `options` are those of `nats.connect` (`user`, `password`, `user_credentials`, `tls`, `name`, …), and go
    before what was found. Raises `FileNotFoundError` where none is there, and what `nats.connect` raises.
    """
    return await nats.connect(**_where(url, data_dir) | options)


def _where(url: str | list[str] | None, data_dir: str | Path | None) -> dict[str, Any]:
    if url is not None:
        return {"servers": url}
    if data_dir is None and (servers := os.environ.get("RIVULET_NATS_URL")):
        variables = {
            "user": "RIVULET_NATS_USER",
            "password": "RIVULET_NATS_PASSWORD",
            "token": "RIVULET_NATS_TOKEN",
            "user_credentials": "RIVULET_NATS_CREDS_FILE",
        }
        given = {option: os.environ[name] for option, name in variables.items() if os.environ.get(name)}
        return {"servers": [server.strip() for server in servers.split(",")]} | given
    file = Path(data_dir or os.environ.get("RIVULET_DATA_DIR") or ".rivulet", "nats.json")
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"where is NATS? There is no url, no RIVULET_NATS_URL, and no router's {file}"
        ) from None
    return {"servers": found["url"], "user": found["user"], "password": found["password"]}
