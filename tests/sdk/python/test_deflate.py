"""Other clients that compress: Python's `websockets`, Node's `ws`, Node's own. Chromium has its own suite."""

import asyncio
import json
import re
import urllib.request
from asyncio.subprocess import PIPE
from pathlib import Path

from harness import LIMIT, ROOT, Live, free_port
from websockets.asyncio.client import connect

SCRIPT = Path(__file__).with_name("deflated.mjs")
# Of many lengths, and with bytes that don't compress among them.
TITLES = [f"{number} " + "river " * (number * 7) + "é✓🌊"[number % 4 :] for number in range(100)]


class Deflate(Live):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        server = self.nats()
        self.admin = f"127.0.0.1:{free_port()}"
        router = self.router(server, admin_listen=self.admin, sessions_compression_threshold="64")
        self.publisher = await self.backend(server)
        self.url = f"{router.url.replace('http', 'ws', 1)}/api/v1/ws?token=ada&events=book.*"

    async def publish(self) -> None:
        for title in TITLES:
            await self.publisher.book(title)

    def assert_compressed(self) -> None:
        """Whether the router says that nearly all events went out compressed."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=LIMIT) as response:
            page = response.read().decode()
        before, after = (
            int(re.search(rf"^rivulet_compression_{side}_bytes_total (\d+)$", page, re.M)[1])
            for side in ("in", "out")
        )
        self.assertGreater(before, sum(len(title.encode()) for title in TITLES) * 0.95)
        self.assertLess(after, before)

    async def test_websockets_of_python_agrees_and_reads_every_frame(self) -> None:
        async with connect(self.url) as socket, asyncio.timeout(LIMIT):
            extensions = [extension.name for extension in socket.protocol.extensions]
            self.assertEqual(extensions, ["permessage-deflate"])
            self.assertEqual(json.loads(await socket.recv())["type"], "connected")
            publishing = asyncio.create_task(self.publish())
            titles = [json.loads(await socket.recv())["data"]["title"] for _ in TITLES]
            await publishing
        self.assertEqual(titles, TITLES)
        self.assert_compressed()

    async def node(self, node: str | Path, *arguments: str) -> None:
        reader = await asyncio.create_subprocess_exec(
            node, SCRIPT, self.url, str(len(TITLES)), *arguments, stdout=PIPE, limit=1 << 20
        )
        assert reader.stdout
        async with asyncio.timeout(LIMIT):
            self.assertIn("permessage-deflate", json.loads(await reader.stdout.readline()))
            await self.publish()
            titles = json.loads(await reader.stdout.readline())
            await reader.wait()
        self.assertEqual(titles, TITLES)
        self.assert_compressed()

    async def test_ws_of_node_agrees_and_reads_every_frame(self) -> None:
        await self.node("node", "ws")

    async def test_nodes_own_agrees_and_reads_every_frame(self) -> None:
        await self.node(ROOT / ".tools" / "bin" / "node24")
