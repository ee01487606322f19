"""Publishes `blob.created` as a Python backend would: a dictionary through `json`, with nats-py."""

import asyncio
import datetime
import json
import os
import sys

import nats


async def main() -> None:
    client = await nats.connect(
        os.environ["NATS_URL"], user=os.environ["NATS_USER"], password=os.environ["NATS_PASSWORD"]
    )
    data = {
        "user_id": sys.argv[1],
        "blob_id": "from-python",
        "processor_id": "p1",
        "schema_id": "s1",
        "preview": "café 😀",
        "book_id": None,
        "created_at": datetime.datetime(2026, 1, 1, 12, 30, 0, 123456).isoformat(),
        "ratio": 1.0,
        "big": 12345678901234567890,
    }
    payload = json.dumps(data)
    await client.jetstream().publish("blob.created", payload.encode())
    await client.close()
    print(payload)


asyncio.run(main())
