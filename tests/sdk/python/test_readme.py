"""Every example of the SDK's README, as it stands there, on a real router with the example backend."""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import unittest

from harness import ROOT, Live, Process, until

README = ROOT / "sdk-python" / "README.md"
ADDRESS = "http://127.0.0.1:8010"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


class Readme(Live):
    def setUp(self) -> None:
        super().setUp()
        server = self.nats()
        self.address = self.router(server).url
        environment = os.environ | {"RIVULET_NATS_URL": server.url}
        command = [sys.executable, ROOT / "examples/backend/backend.py", "--users", "ada", "--every", "0.2"]
        backend = Process(command, self.directory / "backend.log", environment)
        self.addCleanup(backend.end)
        backend.wait_until("ready", lambda: "ready" in backend.log.read_text())

    def test_it_begins_with_five_lines_that_work_when_pasted(self) -> None:
        first = blocks("python")[0]
        self.assertEqual(len([line for line in first.splitlines() if line]), 4)
        self.assertLessEqual(len(first.splitlines()), 5)
        self.assert_prints([sys.executable, "-u", "-c", first.replace(ADDRESS, self.address)])

    def test_its_shell_commands_print_events(self) -> None:
        commands = "".join(blocks("sh")).splitlines()
        self.assertTrue(commands)
        for command in commands:
            _, *arguments = shlex.split(command.replace(ADDRESS, self.address))
            self.assert_prints([sys.executable, *arguments])

    async def test_its_other_programs_run_and_print(self) -> None:
        os.chdir(self.directory)
        self.addCleanup(os.chdir, ROOT)
        examples = blocks("python")[1:]
        self.assertGreaterEqual(len(examples), 4)
        for example in examples:
            with self.subTest(example):
                await self.run_until_it_prints(example.replace(ADDRESS, self.address))

    async def run_until_it_prints(self, example: str) -> None:
        code = compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            running = asyncio.ensure_future(eval(code, {}))
            assert inspect.isawaitable(running)
            await until(
                "it ended or printed events", lambda: running.done() or output.getvalue().count("\n") > 2
            )
            if running.done():
                running.result()
            running.cancel()
            await asyncio.wait([running])
        self.assertGreater(output.getvalue(), "")
        # An example that catches its error has failed too.
        self.assertNotRegex(output.getvalue(), "on the side|UNAVAILABLE|stopped")

    def assert_prints(self, command: list[str]) -> None:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertRegex(process.stdout.readline(), r"(blob|processor)\.\w+")


if __name__ == "__main__":
    unittest.main()
