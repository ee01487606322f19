"""The runner itself: what it counts, and that nothing of a suite outlives it."""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import tempfile
import unittest
from pathlib import Path

loader = importlib.machinery.SourceFileLoader("run", str(Path(__file__).parent / "run"))
runner = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
# A dataclass looks its own module up by name.
importlib.sys.modules["run"] = runner
loader.exec_module(runner)


def run(command: str, **options) -> tuple[runner.Result, str]:
    runner.LOGS.mkdir(parents=True, exist_ok=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = runner.run(runner.Suite("runner-probe", command, **options))
    return result, printed.getvalue()


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


if __name__ == "__main__":
    unittest.main()
