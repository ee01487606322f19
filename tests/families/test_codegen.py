"""What `rivulet codegen` makes of users' own families, and that it is what the router sends."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from pydantic import ValidationError
from rig import (
    HERE,
    INVOICE,
    LIMIT,
    ORDER,
    ROOT,
    SHIPPED,
    SHOP,
    TICKET,
    OnARouter,
    compiled,
    module_of,
    rivulet,
)

from rivulet_client import Client


class Generated(OnARouter):
    def test_from_files_and_from_a_router_is_the_same(self) -> None:
        for language in ("ts", "python"):
            of_files = self.generated(language, "--families", self.families)
            self.assertEqual(of_files, self.generated(language, "--from", self.url))
            self.assertNotIn("BlobCreated", of_files)

    def test_check_is_red_on_drift_and_says_how_to_mend_it(self) -> None:
        families, out = self.directory / "drifting", self.directory / "drift.py"
        families.mkdir()
        shutil.copy(SHOP, families)
        generate = ("codegen", "--lang", "python", "--families", families, "--out", out)
        self.assertEqual(rivulet(*generate, "--check").returncode, 1)
        self.assertFalse(out.exists())
        self.assertEqual(rivulet(*generate).returncode, 0)
        self.assertEqual(rivulet(*generate, "--check").returncode, 0)
        shop = families / "shop.json"
        shop.write_text(shop.read_text().replace('"order_id"', '"order_number"'))
        done = rivulet(*generate, "--check")
        self.assertEqual(done.returncode, 1)
        mend = done.stderr.strip().splitlines()[-1].split()
        self.assertEqual(mend[0], "rivulet")
        self.assertEqual(rivulet(*mend[1:]).returncode, 0)
        self.assertIn("order_number", out.read_text())

    def test_the_python_module_reads_what_the_router_sends_and_runs_in_the_client(self) -> None:
        out = self.directory / "own_families.py"
        done = rivulet("codegen", "--lang", "python", "--families", self.families, "--out", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        own = module_of(out)
        for event_type, data in [
            ("order.placed", ORDER),
            ("order.shipped", SHIPPED),
            ("ticket.opened", TICKET),
            ("invoice.sent", INVOICE),
        ]:
            frame = {"type": event_type, "seq": 1, "data": data}
            event = own.family.events[event_type].model_validate(frame)
            written = event.data.model_dump(mode="json", by_alias=True, exclude_unset=True)
            self.assertEqual(written, data)
        placed = (
            own.family.events["order.placed"].model_validate({"type": "order.placed", "data": ORDER}).data
        )
        self.assertEqual(placed.pay_by, own.Card(kind="card", last4="1234"))
        with self.assertRaises(ValidationError):
            own.OrderShipped(**SHIPPED | {"address": {"street": "Hauptstr. 1"}})

        self.assertEqual(own.family.commands.keys(), {"reserve_stock", "assign_ticket"})
        ask = own.ReserveStock(sku="tea", count=1)
        self.assertEqual((ask.command_name, ask.reply_model()), ("reserve_stock", own.ReserveStockReply))
        self.assertEqual(own.EVENT_TYPES, own.family.events.keys())

        async def in_the_client() -> None:
            async with Client(self.url, token="paula", families=[own.family]) as client:
                events = client.events("stock.*", "ticket.opened")
                reply = await client.command(own.ReserveStock(sku="coffee", count=1))
                self.assertIsInstance(reply, own.ReserveStockReply)
                reserved = await anext(events)
                self.assertEqual(reserved.data.reservation_id, reply.reservation_id)
                await self.publish("ticket.opened", TICKET, "paula")
                self.assertIsInstance(await anext(events), own.TicketOpenedEvent)

        self.run_async(in_the_client())

    def test_the_typescript_module_has_exact_types_and_runs_in_the_client(self) -> None:
        project = self.directory / "ts"
        project.mkdir()
        module = self.generated("ts", "--families", self.families)
        (project / "own.ts").write_text(module, encoding="utf-8")
        for file in ("types.ts", "use.ts"):
            shutil.copy(HERE / file, project)
        self.assertEqual(compiled(project), ("", 0))
        # What the SDK reads at runtime: the fields that may be absent, in whose place it drops null.
        for line in [
            "    'order.placed': ['note'],",
            "    'order.shipped': [],",
            "    'ticket.opened': ['labels'],",
            "    'invoice.sent': ['note'],",
        ]:
            self.assertIn(line, module.splitlines())
        with subprocess.Popen(
            [ROOT / ".tools/bin/node24", "use.ts", self.url], cwd=project, stdout=subprocess.PIPE, text=True
        ) as program:
            self.addCleanup(program.kill)
            self.assertEqual(program.stdout.readline(), "true\n")
            asyncio.run(self.publish("order.placed", ORDER | {"note": None}, "tess"))
            self.assertEqual(json.loads(program.stdout.readline()), ORDER)
            self.assertEqual(program.wait(timeout=LIMIT), 0)


class Documented(unittest.TestCase):
    """The page on families; its example in Rust is looked at by `cargo test`."""

    def test_all_ways_to_write_a_family_give_the_same_types(self) -> None:
        page = (ROOT / "docs/topics/families.md").read_text()
        json_text, python, js = (
            page.split(f"```{language}\n", 1)[1].split("```", 1)[0] for language in ("json", "python", "js")
        )
        outputs = {}
        for way, text in [
            ("by hand", json_text),
            ("with Pydantic", printed([sys.executable, "-"], python)),
            ("with Zod", printed(["node", "--input-type=module", "-"], js)),
        ]:
            with tempfile.TemporaryDirectory() as directory:
                (Path(directory) / "parcel.json").write_text(text)
                for language in ("ts", "python"):
                    out = Path(directory) / "out"
                    done = rivulet("codegen", "--lang", language, "--families", directory, "--out", out)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    outputs[way, language] = out.read_text()
        for language in ("ts", "python"):
            self.assertEqual(outputs["with Pydantic", language], outputs["by hand", language])
            self.assertEqual(outputs["with Zod", language], outputs["by hand", language])

    def test_its_uses_of_the_types_are_right(self) -> None:
        page = (ROOT / "docs/topics/families.md").read_text()
        json_text, ts, py = (
            page.split(f"```{language}\n", 1)[1].split("```", 1)[0] for language in ("json", "ts", "py")
        )
        with tempfile.TemporaryDirectory() as directory:
            project = Path(directory)
            (project / "parcel.json").write_text(json_text)
            for language in ("ts", "python"):
                out = project / f"families.{language.removesuffix('thon')}"
                done = rivulet("codegen", "--lang", language, "--families", project, "--out", out)
                self.assertEqual(done.returncode, 0, done.stderr)
            (project / "page.ts").write_text(f"declare const url: string, token: string;\n{ts}")
            self.assertEqual(compiled(project), ("", 0))
            body = textwrap.indent(py, "    ")
            (project / "page.py").write_text(f"async def main(url: str, token: str) -> None:\n{body}")
            done = subprocess.run(
                [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "page.py"],
                capture_output=True,
                text=True,
                cwd=project,
                env=os.environ | {"MYPYPATH": str(ROOT / "sdk-python/src")},
            )
            self.assertEqual(done.returncode, 0, done.stdout)


def printed(command: list[str], program: str) -> str:
    """What a program prints that is given on standard input."""
    run = subprocess.run(
        command, input=program, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT, check=True
    )
    return run.stdout


class Odd(unittest.TestCase):
    """Names that a language does not take, aliases that speak of themselves, requests that commands share."""

    def generated(self, family: str | None = None) -> Path:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        text = family or (HERE / "odd.json").read_text()
        (directory / "odd.json").write_text(text)
        for language, file in [("ts", "own.ts"), ("python", "odd_families.py")]:
            out = directory / file
            done = rivulet("codegen", "--lang", language, "--families", directory, "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
        return directory

    def test_python_reads_and_writes_it(self) -> None:
        odd = module_of(self.generated() / "odd_families.py")
        for event_type, data in [
            (
                "odd.one",
                {
                    "from": "x",
                    "list": [1],
                    "a-b": 3,
                    "a.b": True,
                    "_hidden": None,
                    "tree": ["a", ["b"]],
                    "json": [{"next": {}}],
                    "pair": ["a", True],
                    "open": {"known": "k", "n": 3},
                    "any": [1],
                },
            ),
            ("odd.bag", {"a": {"way": "left"}}),
            ("odd.choice", {"other": True}),
            ("odd.next", {"n": 0.5}),
        ]:
            event = odd.family.events[event_type].model_validate({"type": event_type, "data": data})
            self.assertEqual(event.data.model_dump(mode="json", by_alias=True, exclude_unset=True), data)
        for event_type, data in [
            ("odd.one", {"from": "x", "_hidden": None, "tree": [1]}),
            ("odd.one", {"from": "x", "_hidden": None, "tree": "", "open": {"known": "k", "n": "three"}}),
            ("odd.bag", {"a": {"way": 1}}),
            ("odd.choice", {"neither": True}),
        ]:
            with self.assertRaises(ValidationError, msg=data):
                odd.family.events[event_type].model_validate({"type": event_type, "data": data})
        replies = {name: command.reply_model() for name, command in odd.family.commands.items()}
        self.assertEqual(replies, {"start": odd.Reply, "stop": odd.Turn, "open-up": odd.OpenUpReply})
        self.assertEqual(odd.StartCommand(way="left").model_dump(), {"way": "left"})

    def test_mypy_and_pyright_find_nothing_in_their_strict_modes(self) -> None:
        project = self.generated()
        shop = project / "shop.py"
        done = rivulet("codegen", "--lang", "python", "--families", SHOP.parent, "--out", shop)
        self.assertEqual(done.returncode, 0, done.stderr)
        sdk = str(ROOT / "sdk-python/src")
        settings = {"typeCheckingMode": "strict", "extraPaths": [sdk]}
        (project / "pyrightconfig.json").write_text(json.dumps(settings))
        for command in [
            [sys.executable, "-m", "mypy", "--strict", "--no-incremental", shop, project / "odd_families.py"],
            [ROOT / "node_modules/.bin/pyright", "--pythonpath", sys.executable, "-p", project],
        ]:
            with self.subTest(command=command):
                done = subprocess.run(
                    command, capture_output=True, text=True, cwd=project, env=os.environ | {"MYPYPATH": sdk}
                )
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_typescript_compiles(self) -> None:
        project = self.generated()
        self.assertIn("    'odd.choice': [],", (project / "own.ts").read_text().splitlines())
        self.assertEqual(compiled(project), ("", 0))

    def test_a_family_may_have_commands_alone(self) -> None:
        project = self.generated(
            '{"x-commands": {"go": {"request": {"type": "object"}, "reply": {"type": "object"}}}}'
        )
        odd = module_of(project / "odd_families.py")
        self.assertEqual((odd.family.events, list(odd.family.commands)), ({}, ["go"]))
        self.assertEqual(compiled(project), ("", 0))


class Flags(unittest.TestCase):
    def test_flags_that_do_not_go_together_are_told_apart(self) -> None:
        families = SHOP.parent
        for arguments, why in [
            (("--lang", "ts"), "--families DIRECTORY or --from URL"),
            (("--families", families), "--lang ts or --lang python"),
            (("--lang", "ts", "--families", families), "--out FILE"),
            (("--lang", "ts", "--families", families, "--from", "http://localhost"), "cannot be used with"),
            (("--lang", "ts", "--from", "localhost:8010", "--out", "a.ts"), "http://host:port"),
        ]:
            done = rivulet("codegen", *arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(why, done.stderr)


if __name__ == "__main__":
    unittest.main()
