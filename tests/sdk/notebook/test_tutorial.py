"""The tutorial, run in a real kernel with a real router and the example backend; the magics one by one."""

import os
import subprocess
import sys
import unittest
from typing import Any

import nbformat
from nbclient import NotebookClient
from world import ROOT, Router

TUTORIAL = ROOT / "examples/notebooks/tutorial.ipynb"
# Seconds that one cell may take: the machine may be busy.
CELL_WITHIN = 240


def environment(router: Router) -> dict[str, str]:
    """Where this tree's SDK is, and the router's nats-server."""
    source = str(ROOT / "sdk-python/src")
    return os.environ | {"RIVULET_DATA_DIR": str(router.data_dir), "PYTHONPATH": source}


def run(notebook: Any, router: Router, *, errors: bool = False) -> list[Any]:
    """Runs a notebook; returns its code cells."""
    client = NotebookClient(
        notebook,
        timeout=CELL_WITHIN,
        allow_errors=errors,
        kernel_name="python3",
        # It warns that its ports on this machine are not encrypted.
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute(env=environment(router), cwd=str(router.data_dir))
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(cell: Any) -> str:
    """What a cell says in plain text."""
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs
    )


def shown(cell: Any) -> str:
    """What a cell shows as HTML."""
    return "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)


class Tutorial(unittest.TestCase):
    cells: list[Any]

    @classmethod
    def setUpClass(cls) -> None:
        router = cls.enterClassContext(Router())
        backend = subprocess.Popen(
            [sys.executable, ROOT / "examples/backend/backend.py", "--failures", "0"],
            env=environment(router),
            stderr=subprocess.PIPE,
        )
        cls.addClassCleanup(backend.wait)
        cls.addClassCleanup(backend.terminate)
        assert backend.stderr
        cls.addClassCleanup(backend.stderr.close)
        assert any(b"ready" in line for line in iter(backend.stderr.readline, b"")), "no backend"
        notebook = nbformat.read(TUTORIAL, 4)
        for cell in notebook.cells:
            cell.source = cell.source.replace("http://127.0.0.1:8010", router.url)
        cls.cells = run(notebook, router)

    def with_line(self, line: str) -> Any:
        """The last cell that has this line."""
        return [cell for cell in self.cells if line in cell.source.splitlines()][-1]

    def test_it_has_fifteen_examples_and_no_outputs_of_its_own(self) -> None:
        notebook = nbformat.read(TUTORIAL, 4)
        heads = [cell.source for cell in notebook.cells if cell.source.startswith("## ")]
        self.assertEqual([head.split(".")[0] for head in heads], [f"## {number}" for number in range(1, 16)])
        self.assertFalse([cell.id for cell in notebook.cells if cell.get("outputs")])

    def test_it_connects_and_subscribes(self) -> None:
        self.assertRegex(text(self.with_line("feed")), r"state +connected")
        cell = self.with_line("%rivulet subscribe blob.* processor.*")
        self.assertRegex(text(cell), r"patterns +blob\.\*, processor\.\*")

    def test_a_command_brings_its_reply_and_an_event(self) -> None:
        self.assertRegex(text(self.with_line("made")), r"CreateBlobReply\(blob_id='blob_\w+'\)")
        self.assertEqual(text(self.with_line("created.data.preview")), "'The river'")
        self.assertIn("blob.created", shown(self.with_line("%rivulet events 5")))
        matched = self.with_line("match created:")
        self.assertEqual(text(matched), "a blob of ada with 9 characters\n")

    def test_a_cell_runs_for_each_event(self) -> None:
        self.assertEqual(
            text(self.with_line("[progress for blob_id, progress in steps if blob_id == made.blob_id]")),
            "[0.0, 0.25, 0.5, 0.75, 1.0]",
        )
        output = shown(self.with_line("print(event.data.status, event.data.progress)"))
        self.assertIn("<pre>processing 0.75\n</pre><pre>completed 1.0\n</pre>", output)
        self.assertIn("5 runs, 0 errors", output)

    def test_what_is_published_comes(self) -> None:
        self.assertEqual(text(self.with_line("book.data.title")), "'Collected works'")

    def test_an_error_is_shown_and_ends_nothing(self) -> None:
        output = shown(self.with_line("1 / 0"))
        self.assertIn("line 2: 1 / 0\nZeroDivisionError", output)
        self.assertIn("replaced: 1 runs, 1 errors", output)
        self.assertEqual(text(self.with_line("gone")), "['b2']")
        self.assertIn("1 runs, 0 errors", shown(self.with_line("gone.append(event.data.book_id)")))

    def test_unknown_events_come_and_are_escaped(self) -> None:
        self.assertIn("UnknownEvent(", text(self.with_line("lent")))
        table = shown(self.with_line("%rivulet events 1"))
        self.assertIn("&lt;b&gt;grace&lt;/b&gt;", table)
        self.assertNotIn("<b>", table)

    def test_the_dtypes_of_the_table(self) -> None:
        cell = self.with_line("from rivulet_client.pandas import to_dataframe")
        dtypes = dict(line.split(maxsplit=1) for line in text(cell).splitlines())
        self.assertEqual(
            dtypes,
            {
                "type": "category",
                "seq": "Int64",
                "time": "datetime64[us, UTC]",
                "status": "category",
                "progress": "float64",
                "duration_ms": "Int64",
                "dtype:": "object",
            },
        )
        sizes = text(self.with_line('table.groupby("type", observed=True).size()'))
        self.assertRegex(sizes, r"processor\.status +5\n")

    def test_a_client_goes_on_where_it_was(self) -> None:
        self.assertEqual(text(self.with_line("again == created")), "True")

    def test_the_rates_are_drawn(self) -> None:
        plot = shown(self.with_line("%rivulet plot"))
        self.assertTrue(plot.startswith("<svg "), plot)
        self.assertIn("processor.status (5)", plot)
        self.assertRegex(text(self.with_line("%rivulet status")), r"state +closed")


class Magics(unittest.TestCase):
    def test_what_goes_wrong_is_said_in_one_line(self) -> None:
        cells = [
            ("%load_ext rivulet_client.jupyter", ""),
            ("%rivulet events", "not connected: %rivulet connect"),
            ("%%on blob.*\npass", "not connected: %rivulet connect"),
            ("%rivulet", "the following arguments are required: ACTION"),
            ("%rivulet connect http://nowhere", "a token is needed"),
            ("%rivulet connect ftp://nowhere --token ada", "connect: "),
            ("name = 'ada'", ""),
            ("feed = %rivulet connect URL --token $name", ""),
            ("%rivulet subscribe blob.*.", "a pattern has no empty tokens"),
            ("%rivulet publish book.created --user ada", "the JSON object is missing"),
            ("%rivulet publish book.created {nonsense} --user ada", "not JSON"),
            ('%rivulet publish book.created {"book_id": 1} --user ada', "book_id"),
            ('%rivulet publish book.created {"book_id": "b"}', "exactly one of"),
            (
                '%rivulet publish book.created {"book_id": "b"} --user ada --nats nats://127.0.0.1:1',
                "%rivulet publish: NATS can't be reached",
            ),
            ("%%on\npass", "needs a pattern"),
            ("%%on book.*\n1 +", "invalid syntax"),
            ("%rivulet disconnect", ""),
            ("%rivulet subscribe blob.*", "disconnected: %rivulet connect again"),
            ("%unload_ext rivulet_client.jupyter", ""),
            ("%rivulet status", "not found"),
        ]
        with Router() as router:
            sources = [source.replace("URL", router.url) for source, _ in cells]
            made = [nbformat.v4.new_code_cell(source) for source in sources]
            ran = run(nbformat.v4.new_notebook(cells=made), router, errors=True)
        for (source, wanted), cell in zip(cells, ran, strict=True):
            with self.subTest(source):
                said = "".join(output.get("evalue") or output.get("text", "") for output in cell.outputs)
                if wanted:
                    self.assertIn(wanted, said)
                else:
                    self.assertEqual(said, "")

    def test_a_cells_output_is_escaped_and_bounded(self) -> None:
        sources = [
            "%load_ext rivulet_client.jupyter\nfeed = %rivulet connect URL --token ada",
            "%%on book.*\nprint(event.data.book_id * 3_000)",
            "%%on book.created\nraise RuntimeError(event.data.book_id)",
            '%rivulet publish book.created {"book_id": "<script>"} --user ada\n'
            "await feed.until(lambda: feed.cells['book.created'].errors)\n%rivulet status",
            "%rivulet disconnect",
        ]
        with Router() as router:
            cells = [nbformat.v4.new_code_cell(source.replace("URL", router.url)) for source in sources]
            ran = run(nbformat.v4.new_notebook(cells=cells), router)
        for cell in ran[1:3]:
            self.assertIn("&lt;script&gt;", shown(cell))
            self.assertNotIn("<script>", shown(cell))
        self.assertIn("more characters", shown(ran[1]))
        # Within a pattern that is there already: one event, once.
        self.assertRegex(text(ran[3]), r"patterns +book\.\*\nevents +1 received")

    def test_the_plot_is_drawn_again(self) -> None:
        sources = [
            "%load_ext rivulet_client.jupyter\n"
            "feed = %rivulet connect URL --token ada\n%rivulet subscribe book.*",
            """
from rivulet_client.jupyter.show import Area
show, drawn = Area.show, []
Area.show = lambda area, picture: (drawn.append(picture), show(area, picture))""",
            "%rivulet plot",
            '%rivulet publish book.created {"book_id": "b"} --user ada',
            """
import asyncio
async with asyncio.timeout(120):
    while not (drawn and "book.created (1)" in drawn[-1]):
        await asyncio.sleep(0.05)""",
        ]
        with Router() as router:
            cells = [nbformat.v4.new_code_cell(source.replace("URL", router.url)) for source in sources]
            ran = run(nbformat.v4.new_notebook(cells=cells), router)
        self.assertIn("book.created (1)", shown(ran[2]))

    def test_what_comes_while_a_cell_keeps_the_kernel_busy_comes_afterwards(self) -> None:
        publishes = """
from rivulet_client import BookCreated
from rivulet_client.jupyter.magics import _in_a_thread
from rivulet_client.nats import Outgoing, Publisher, connect

async def publish():
    async with await connect() as nats:
        # More than wait for a reader.
        events = [Outgoing(BookCreated(book_id=str(number)), user="ada") for number in range(3_000)]
        await Publisher(nats).publish_many(events)

_in_a_thread(publish())
came = feed.received
# The router's answer is behind the events.
%rivulet subscribe blob.*
came"""
        sources = [
            "%load_ext rivulet_client.jupyter\nfeed = %rivulet connect URL --token ada",
            "seen = []",
            "%%on book.*\nseen.append(int(event.data.book_id))",
            publishes,
            "await feed.until(lambda: feed.received >= 3_000)\nseen == list(range(3_000))",
        ]
        with Router() as router:
            cells = [nbformat.v4.new_code_cell(source.replace("URL", router.url)) for source in sources]
            ran = run(nbformat.v4.new_notebook(cells=cells), router)
        self.assertEqual(text(ran[3]), "0")
        self.assertEqual(text(ran[4]), "True")


if __name__ == "__main__":
    unittest.main()
