"""What mypy, at its strictest, says of a backend that is right and of one that is wrong."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from world import ROOT

CONSUMER = Path(__file__).parent / "consumer"


def errors(file: Path) -> list[tuple[int, str]]:
    """The lines at fault, and why."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"]
    found = subprocess.run(
        [*mypy, "--cache-dir", str(ROOT / ".tools/mypy"), str(file)],
        env=os.environ | {"MYPYPATH": str(ROOT / "sdk-python/src")},
        capture_output=True,
        text=True,
    )
    assert found.returncode in (0, 1), found.stderr
    lines = re.findall(rf"{file.name}:(\d+): error: (.*)", found.stdout)
    return [(int(number), why) for number, why in lines]


class Types(unittest.TestCase):
    def test_what_is_right_passes(self) -> None:
        self.assertEqual(errors(CONSUMER / "right.py"), [])

    def test_what_is_wrong_is_found(self) -> None:
        file = CONSUMER / "wrong.py"
        marked = [
            number for number, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("!")
        ]
        self.assertEqual([number for number, _ in errors(file)], marked)

    def test_the_examples_pass(self) -> None:
        for file in ("backend/backend.py", "backend/library.py", "shop/backend.py"):
            with self.subTest(file):
                self.assertEqual(errors(ROOT / "examples" / file), [])


if __name__ == "__main__":
    unittest.main()
