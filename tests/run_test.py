"""The runner itself: what it counts, and that nothing of a suite outlives it."""

import asyncio
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import tempfile
import unittest
from pathlib import Path

loader = importlib.machinery.SourceFileLoader("run", str(Path(__file__).parent / "run"))
runner = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
# A dataclass looks its own module up by name.
importlib.sys.modules["run"] = runner
loader.exec_module(runner)


def run_all(*suites: runner.Suite, jobs: int = 2) -> tuple[list[runner.Result], str]:
    async def run_through() -> list[runner.Result]:
        return await runner.Run(jobs).all(list(suites))

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = asyncio.run(run_through())
    return results, printed.getvalue()


def run(command: str, **options) -> tuple[runner.Result, str]:
    [result], printed = run_all(runner.Suite("runner-probe", command, **options))
    return result, printed


class Count(unittest.TestCase):
    def test_cargo_binaries_add_up(self):
        text = (
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n"
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n"
        )
        self.assertEqual(runner.count(text, 101), (5, 1, 1))

    def test_unittest(self):
        self.assertEqual(runner.count("Ran 5 tests in 0.1s\n\nOK (skipped=2)\n", 0), (3, 0, 2))
        self.assertEqual(runner.count("Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=1)\n", 1), (3, 2, 0))

    def test_node(self):
        text = "ok 1 - a\n# tests 6\n# suites 0\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 1\n# todo 0\n"
        self.assertEqual(runner.count(text, 1), (3, 2, 1))

    def test_plain_closing_line(self):
        self.assertEqual(runner.count("12 passed, 0 failed\n", 0), (12, 0, 0))
        self.assertEqual(runner.count("12 passed, 0 failed, 3 skipped\n", 0), (12, 0, 3))

    def test_a_silent_suite_counts_as_one(self):
        self.assertEqual(runner.count("", 0), (1, 0, 0))

    def test_the_exit_code_outweighs_a_good_closing_line(self):
        self.assertEqual(runner.count("12 passed, 0 failed\n", 1), (12, 1, 0))


class Run(unittest.TestCase):
    def test_a_failure_shows_the_log(self):
        result, printed = run("echo the reason; exit 3")
        self.assertEqual(result.failed, 1)
        self.assertIn("the reason", printed)

    def test_a_pipe_that_breaks_early_fails(self):
        self.assertEqual(run("false | true")[0].failed, 1)

    def test_what_cannot_be_set_up_is_not_run_with_the_reason(self):
        result, printed = run("exit 1", needs=("no-such-part",))
        self.assertEqual((result.failed, result.skipped), (0, 1))
        self.assertIn("NOT RUN: tests/setup: no part is called no-such-part", printed)

    def test_a_suite_over_its_limit_fails(self):
        result, printed = run("echo begun; sleep 600", limit=1)
        self.assertEqual(result.failed, 1)
        self.assertIn("still running after 1 s", printed)

    def test_as_many_suites_as_permitted_run_at_a_time(self):
        with tempfile.TemporaryDirectory() as directory:
            # Each ends only when it has seen the other: they run side by side.
            meet = f"cd '{directory}'; touch $ME; until [ -e $YOU ]; do sleep 0.01; done"
            one, two = f"ME=a YOU=b; {meet}", f"ME=b YOU=a; {meet}"
            results, _ = run_all(
                runner.Suite("probe-1", one, limit=60), runner.Suite("probe-2", two, limit=60)
            )
            self.assertEqual([result.failed for result in results], [0, 0])
        lock = f"mkdir '{directory}' && rmdir '{directory}'"
        results, _ = run_all(*(runner.Suite(f"probe-{n}", lock) for n in range(4)), jobs=1)
        self.assertEqual([result.failed for result in results], [0] * 4)

    def test_nothing_outlives_its_suite(self):
        with tempfile.TemporaryDirectory() as directory:
            fifo = Path(directory, "fifo")
            os.mkfifo(fifo)
            # The child holds the pipe open for writing: that reading meets its end proves the child's.
            reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            self.assertEqual(run(f"sleep 600 >'{fifo}' & exec 3>'{fifo}'")[0].failed, 0)
            os.set_blocking(reader, True)
            self.assertEqual(os.read(reader, 1), b"")
            os.close(reader)


class Builds(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(setattr, runner, "BUILDS", runner.BUILDS)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.made = Path(directory.name, "made")

    def test_what_two_suites_come_after_is_built_once_and_before_them(self):
        runner.BUILDS = {"probe": runner.Build(f"sleep 0.1; echo built >>'{self.made}'", ())}
        look = f"[ $(cat '{self.made}') = built ]"
        suites = [runner.Suite(f"runner-probe-{number}", look, after=("probe",)) for number in (1, 2)]
        results, printed = run_all(*suites)
        self.assertEqual([result.failed for result in results], [0, 0], printed)

    def test_a_build_that_fails_fails_the_run_and_shows_its_log(self):
        runner.BUILDS = {"probe": runner.Build("echo the reason >&2; exit 1", ())}
        results, printed = run_all(runner.Suite("runner-probe", "true", after=("probe",)))
        self.assertEqual([result.failed for result in results], [1, 0])
        self.assertEqual(results[1].why_not_run, "the build `probe` failed")
        self.assertIn("the reason", printed)

    def test_each_rust_test_binary_is_a_suite_of_its_own_name(self):
        def named(kind: str, name: str, test: bool = True) -> str:
            return json.dumps({
                "executable": f"/target/{kind}-{name}",
                "manifest_path": "/clone/server/Cargo.toml",
                "profile": {"test": test},
                "target": {"kind": [kind], "name": name},
            })  # fmt: skip

        self.addCleanup(setattr, runner, "RUST_TESTS", runner.RUST_TESTS)
        runner.RUST_TESTS = self.made
        lines = [
            named("lib", "router"),
            named("bin", "chaos"),
            named("test", "chaos"),
            named("bin", "x", False),
        ]
        suites = runner.rust_suites("\n".join(["   Compiling", *lines]))
        names = ["rust/server", "rust/server-bin-chaos", "rust/server-chaos"]
        self.assertEqual([suite.name for suite in suites], names)
        self.assertEqual(os.readlink(self.made / "server-chaos"), "/target/test-chaos")
        self.assertEqual({suite.directory for suite in suites}, {Path("/clone/server")})


if __name__ == "__main__":
    unittest.main()
