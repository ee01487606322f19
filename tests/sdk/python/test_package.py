"""The package as users get it: built, installed where nothing else is, imported, run, read by checkers."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
SDK = ROOT / "sdk-python"
CONSUMER = HERE / "consumer.py"
# Importing it takes nothing but what it depends on.
USE = """
import asyncio, rivulet_client
async def main():
    async with rivulet_client.Client("http://127.0.0.1:1", token="ada") as client:
        reader = client.events("*")
    assert [event async for event in reader] == []
asyncio.run(main())
assert rivulet_client.decode('{"type":"book.created","data":{"book_id":"b"}}')[0].data.book_id == "b"
print(rivulet_client.__file__)
"""


def run(*command: str | Path, **options: object) -> str:
    """Runs a program; its output is shown where it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}:\n{done.stdout}")
    return str(done.stdout)


class Package(unittest.TestCase):
    directory: Path
    wheel: Path
    sdist: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="rivulet-package-")))
        # From a copy, so that no build leaves anything behind in the tree.
        source = cls.directory / "source"
        shutil.copytree(SDK, source, ignore=shutil.ignore_patterns("__pycache__", "dist"))
        output = cls.directory / "dist"
        # The wheel is built from the sdist, as it is for those who take that.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source)
        (cls.wheel,) = output.glob("*.whl")
        (cls.sdist,) = output.glob("*.tar.gz")

    def environment(self, name: str, package: Path, constraints: Path) -> Path:
        """A new environment with the package; returns its Python."""
        directory = self.directory / name
        venv.create(directory, with_pip=True, symlinks=True)
        python = directory / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package, "-c", constraints)
        return python

    def test_both_files_hold_what_they_should(self) -> None:
        sources = {path.name for path in (SDK / "src/rivulet_client").glob("*.py")} | {"py.typed"}
        with zipfile.ZipFile(self.wheel) as wheel:
            names = wheel.namelist()
            metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
        self.assertLessEqual({f"rivulet_client/{name}" for name in sources}, set(names))
        self.assertTrue(all(name.startswith("rivulet_client") for name in names), names)
        for line in ["Requires-Python: >=3.11", "License-Expression: MIT OR Apache-2.0", "Typing :: Typed"]:
            self.assertIn(line, metadata)
        needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
        self.assertEqual(sorted(needed), ["pydantic", "websockets"])
        self.assertIn("# rivulet-client", metadata)
        with tarfile.open(self.sdist) as sdist:
            packed = {Path(name).name for name in sdist.getnames()}
        self.assertLessEqual(sources | {"README.md", "LICENSE-MIT", "LICENSE-APACHE"}, packed)

    def test_both_files_install_and_run_in_an_empty_environment(self) -> None:
        for name, package in [("wheel", self.wheel), ("sdist", self.sdist)]:
            with self.subTest(name):
                python = self.environment(name, package, ROOT / "tests/constraints.txt")
                self.assertIn(str(self.directory / name), run(python, "-I", "-W", "error", "-c", USE))
                self.assertIn(
                    "usage: python -m rivulet_client", run(python, "-I", "-m", "rivulet_client", "--help")
                )
                if name == "wheel":
                    self.check_types(python)

    @unittest.skipIf(
        sys.version_info >= (3, 13), "the oldest permitted pydantic has no wheel for this Python"
    )
    def test_the_oldest_permitted_dependencies_do(self) -> None:
        python = self.environment("lowest", self.wheel, HERE / "lowest.txt")
        run(python, "-I", "-c", USE)
        run(python, "-m", "unittest", "discover", "-s", SDK / "tests")

    def check_types(self, python: Path) -> None:
        """The consumer's errors are those that it expects, by both checkers, from the installed package."""
        lines = CONSUMER.read_text().splitlines()
        expected = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
        with self.subTest("mypy"):
            command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, CONSUMER]
            found = subprocess.run(
                [*command, "--no-incremental"], cwd=self.directory, capture_output=True, text=True
            )
            errors = re.findall(r"consumer\.py:(\d+): error", found.stdout)
            self.assertEqual({int(line) for line in errors}, expected, found.stdout + found.stderr)
        with self.subTest("pyright"):
            project = self.directory / "consumer"
            project.mkdir()
            shutil.copy(CONSUMER, project)
            (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
            checker = ROOT / "node_modules/.bin/pyright"
            command = [checker, "--outputjson", "--pythonpath", python, "-p", project]
            report = subprocess.run(command, capture_output=True, text=True)
            found = json.loads(report.stdout)["generalDiagnostics"]
            lines_found = {
                entry["range"]["start"]["line"] + 1 for entry in found if entry["severity"] == "error"
            }
            self.assertEqual(lines_found, expected, report.stdout)


if __name__ == "__main__":
    unittest.main()
