"""The programs of docs/topics/python-backends.md do what they say."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import AsyncIterator
from typing import Any

from world import ROOT, WITHIN, Router, User

PAGE = ROOT / "docs/topics/python-backends.md"


class Docs(unittest.IsolatedAsyncioTestCase):
    router: Router
    programs: list[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.router = cls.enterClassContext(Router())
        nats = cls.router.nats
        # Where a nats-server of one's own would be.
        here = f"nats://{nats['user']}:{nats['password']}@{nats['url'].removeprefix('nats://')}"
        cls.programs = [
            program.replace("nats://127.0.0.1:4222", here)
            for program in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        ]
        assert len(cls.programs) == 3

    @contextlib.asynccontextmanager
    async def running(self, program: str) -> AsyncIterator["asyncio.subprocess.Process"]:
        source = str(ROOT / "sdk-python/src")
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(program)
            file.flush()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-u",
                file.name,
                env=os.environ | {"RIVULET_DATA_DIR": str(self.router.data_dir), "PYTHONPATH": source},
                stdout=subprocess.PIPE,
            )
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.communicate()

    async def answered(self, user: User, content: str) -> dict[str, Any]:
        """Asks until the backend is there."""
        async with asyncio.timeout(WITHIN):
            while True:
                answer = await user.ask("create_blob", {"content": content, "schema_id": "text"})
                if answer["data"].get("code") != "BACKEND_UNAVAILABLE":
                    return answer
                await asyncio.sleep(0.05)

    async def test_publish(self) -> None:
        async with User.of(self.router, "ada") as ada, self.running(self.programs[0]) as program:
            self.assertEqual((await ada.next("book.created"))["data"], {"book_id": "b1", "title": "Rivers"})
            output, _ = await program.communicate()
            self.assertRegex(output.decode(), r"^RIVULET \d+\n$")

    async def test_answer_commands(self) -> None:
        async with User.of(self.router, "ada") as ada, self.running(self.programs[1]):
            refused = await self.answered(ada, "")
            self.assertEqual((refused["type"], refused["data"]["field"]), ("error", "data.content"))
            self.assertEqual((await self.answered(ada, "c"))["type"], "reply")

    async def test_without_the_sdk(self) -> None:
        async with User.of(self.router, "a b") as user, self.running(self.programs[2]):
            refused = await self.answered(user, "")
            self.assertEqual((refused["type"], refused["data"]["field"]), ("error", "data.content"))
            await user.send("create_blob", {"content": "c", "schema_id": "text"})
            frames = {(await user.next())["type"] for _ in range(2)}
            self.assertEqual(frames, {"reply", "book.created"})


if __name__ == "__main__":
    unittest.main()
