"""Users' own families on a real router: by hand, by Pydantic, by Zod; a backend in Go; generated modules."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import nats
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
BINARY = Path(os.environ.get("RIVULET_BINARY", ROOT / "target/debug/rivulet")).resolve()
SHOP = ROOT / "examples/families/shop.json"
# How long anything may take that is waited for.
LIMIT = 60

ORDER = {
    "order_id": "o1",
    "lines": [{"sku": "tea", "count": 2, "cents": 450}],
    "pay_by": {"kind": "card", "last4": "1234"},
    "placed_at": "2026-01-31T12:00:00Z",
}
SHIPPED = {
    "order_id": "o1",
    "carrier": "bike",
    "tracking": None,
    "address": {"street": "Hauptstr. 1", "city": "Bonn"},
}
TICKET = {
    "ticket_id": "t1",
    "by": {"name": "Ada"},
    "opened_at": "2026-01-31T12:00:00Z",
    "place": [50.7, 7.1],
    "urgency": "low",
    "parent": None,
    "counts": {"seen": 3},
}
INVOICE = {
    "invoice_id": "i1",
    "lines": [{"sku": "tea", "count": 2}],
    "sent_at": "2026-01-31T12:00:00Z",
    "due": None,
    "tags": {"a": "b"},
    "place": [50.7, 7.1],
    "state": "new",
    "by": {"kind": "cash"},
    "either": 1,
}


def rivulet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVULET_")}
    return subprocess.run(
        [BINARY, *arguments], capture_output=True, text=True, env=environment, timeout=LIMIT, check=False
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OnARouter(unittest.TestCase):
    """One router and one backend for all tests."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="rivulet-families-")))
        cls.families = cls.directory / "families"
        cls.families.mkdir()
        shutil.copy(SHOP, cls.families)
        for name, command in [
            ("ticket", [sys.executable, HERE / "pydantic_family.py"]),
            ("invoice", ["node", HERE / "zod_family.mjs"]),
        ]:
            printed = subprocess.run(command, stdout=subprocess.PIPE, timeout=LIMIT, check=True).stdout
            (cls.families / f"{name}.json").write_bytes(printed)

        cls.port, data = free_port(), cls.directory / "data"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RIVULET_")}
        environment |= {"RIVULET_LISTEN": f"127.0.0.1:{cls.port}", "RIVULET_ADMIN_LISTEN": "off"}
        cls.start([BINARY, "serve", "--dev", "--families", cls.families, "--data-dir", data], environment)
        cls.url = f"http://127.0.0.1:{cls.port}"
        deadline = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{cls.url}/health/ready", timeout=5)
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the router is not ready")
            time.sleep(0.05)

        cls.nats = json.loads((data / "nats.json").read_text())
        backend = cls.directory / "shop"
        subprocess.run(["go", "build", "-o", backend, "."], cwd=ROOT / "examples/shop/go", check=True)
        login = {f"NATS_{key.upper()}": cls.nats[key] for key in ("url", "user", "password")}
        shop = cls.start([backend], os.environ | login, stderr=subprocess.PIPE)
        cls.addClassCleanup(shop.stderr.close)
        while b"ready" not in (line := shop.stderr.readline()):
            if not line:
                raise RuntimeError("the backend ended")

    @classmethod
    def start(cls, command: list[Any], environment: dict[str, str], **pipes: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, env=environment, cwd=cls.directory, **pipes)
        cls.addClassCleanup(process.wait, timeout=LIMIT)
        cls.addClassCleanup(process.terminate)
        return process

    def run_async(self, test: Coroutine[Any, Any, None]) -> None:
        asyncio.run(asyncio.wait_for(test, LIMIT))

    def client(self, user: str, **query: object) -> connect:
        written = "&".join(f"{name}={value}" for name, value in {"token": user, **query}.items())
        return connect(f"ws://127.0.0.1:{self.port}/api/v1/ws?{written}")

    async def bus(self) -> nats.NATS:
        login = {"user": self.nats["user"], "password": self.nats["password"]}
        return await nats.connect(self.nats["url"], **login)

    async def publish(self, subject: str, data: object, user: str = "ada") -> int:
        bus = await self.bus()
        payload = json.dumps(data).encode()
        stored = await bus.jetstream().publish(subject, payload, headers={"Rivulet-User": user})
        await bus.close()
        return stored.seq

    def page(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=LIMIT) as page:
            return json.load(page)

    def generated(self, language: str, *of: str | Path) -> str:
        out = self.directory / f"{self.id()}.{language}"
        done = rivulet("codegen", "--lang", language, *of, "--out", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out.read_text(encoding="utf-8")


def module_of(file: Path) -> Any:
    """Imports a generated file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    # Pydantic looks names up where a class says that it is from.
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def compiled(project: Path) -> tuple[str, int]:
    """What the TypeScript compiler says of a directory."""
    for file in ("client.d.ts", "tsconfig.json"):
        shutil.copy(HERE / file, project)
    command = [ROOT / "node_modules/.bin/tsc", "-p", project]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.returncode


async def next_of(client: ClientConnection, wanted: str) -> dict[str, Any]:
    """The next frame, which is of this type."""
    frame = json.loads(await client.recv())
    assert frame["type"] == wanted, frame
    return frame


class OnTheWire(OnARouter):
    def test_events_of_each_family_arrive(self) -> None:
        async def test() -> None:
            async with self.client("ada", events="*") as ada:
                await next_of(ada, "connected")
                for event_type, data in [
                    ("order.placed", ORDER),
                    ("ticket.opened", TICKET),
                    ("invoice.sent", INVOICE),
                    # Of no family: old routers carry new events.
                    ("order.archived", {"any": "thing"}),
                ]:
                    seq = await self.publish(event_type, data)
                    event = await next_of(ada, event_type)
                    self.assertEqual((event["seq"], event["data"]), (seq, data))

        self.run_async(test())

    def test_a_broken_event_is_rejected_with_its_place(self) -> None:
        async def test() -> None:
            bus = await self.bus()
            rejected = await bus.subscribe("rivulet.rejected.>")
            await bus.flush()
            async with self.client("ada", events="*") as ada:
                await next_of(ada, "connected")
                for subject, broken, pointer in [
                    (
                        "order.placed",
                        ORDER | {"lines": [{"sku": "tea", "count": 0, "cents": 1}]},
                        "/lines/0/count",
                    ),
                    ("ticket.opened", TICKET | {"by": {}}, "/by/name"),
                    ("invoice.sent", INVOICE | {"place": [1]}, "/place"),
                ]:
                    await self.publish(subject, broken)
                    message = await rejected.next_msg(timeout=LIMIT)
                    self.assertEqual(message.subject, f"rivulet.rejected.{subject}")
                    self.assertEqual(message.headers["Rivulet-Rejected-Pointer"], pointer)
                # What comes next is the first that is whole.
                await self.publish("order.shipped", SHIPPED)
                await next_of(ada, "order.shipped")
            await bus.close()

        self.run_async(test())

    def test_the_go_backend_answers_the_command_and_tells_all_screens_of_its_user(self) -> None:
        async def test() -> None:
            async with (
                self.client("ada%20l", events="stock.*") as ada,
                self.client("ada%20l", events="stock.*") as phone,
                self.client("bob", events="stock.*") as bob,
            ):
                for client in (ada, phone, bob):
                    await next_of(client, "connected")
                ask = {"type": "reserve_stock", "id": "1", "data": {"sku": "tea", "count": 2}}
                await ada.send(json.dumps(ask))
                # The event and the answer come on different ways.
                frames = {(frame := json.loads(await ada.recv()))["type"]: frame for _ in range(2)}
                reservation = frames["reply"]["data"]["reservation_id"]
                self.assertEqual(frames["reply"]["id"], "1")
                expected = {"reservation_id": reservation, "sku": "tea", "count": 2}
                self.assertEqual(frames["stock.reserved"]["data"], expected)
                self.assertEqual((await next_of(phone, "stock.reserved"))["data"], expected)

                for data, code, more in [
                    ({"sku": "tea", "count": 0}, "INVALID_MESSAGE", {"field": "data.count"}),
                    ({"sku": "tea"}, "INVALID_MESSAGE", {"field": "data.count"}),
                    ({"sku": "tea", "count": 100}, "OUT_OF_STOCK", {"left": 10}),
                ]:
                    await ada.send(json.dumps({"type": "reserve_stock", "data": data}))
                    error = (await next_of(ada, "error"))["data"]
                    self.assertEqual(error["code"], code)
                    self.assertLessEqual(more.items(), error.items())

                await self.publish("stock.level", {"left": {}}, "bob")
                await next_of(bob, "stock.level")

        self.run_async(test())

    def test_an_ephemeral_event_is_live_only(self) -> None:
        async def test() -> None:
            async with self.client("eve", events="stock.*,order.*") as eve:
                connected = (await next_of(eve, "connected"))["data"]
                await self.publish("stock.level", {"left": {"tea": 1}}, "eve")
                await next_of(eve, "stock.level")
                await self.publish("order.shipped", SHIPPED, "eve")
                await next_of(eve, "order.shipped")
            cursor = {"stream": connected["stream"], "seq": connected["seq"]}
            async with self.client("eve", events="stock.*,order.*", **cursor) as eve:
                await next_of(eve, "connected")
                await next_of(eve, "order.shipped")

        self.run_async(test())

    def test_publish_goes_by_the_families(self) -> None:
        broken = json.dumps(ORDER | {"lines": []})
        event = ["publish", "order.placed", "--user", "ada", "--families", self.families]
        event += ["--data-dir", self.directory / "data"]
        done = rivulet(*event, "--data", broken)
        self.assertEqual(done.returncode, 1)
        self.assertIn("at /lines", done.stderr)
        done = rivulet(*event, "--data", json.dumps(ORDER))
        self.assertEqual(done.returncode, 0, done.stderr)


class Pages(OnARouter):
    def test_the_families_are_served_merged(self) -> None:
        tags = [branch["properties"]["type"]["const"] for branch in self.page("schemas/events.json")["oneOf"]]
        for tag in ["blob.created", "order.placed", "ticket.opened", "invoice.sent"]:
            self.assertIn(tag, tags)
        messages = self.page("asyncapi.json")["components"]["messages"]
        for name in [
            "create_blob",
            "reserve_stock",
            "reserve_stock.reply",
            "assign_ticket",
            "stock.reserved",
        ]:
            self.assertIn(name, messages)

    def test_each_family_is_served_as_its_file(self) -> None:
        served = self.page("schemas/families.json")
        self.assertEqual(list(served), ["invoice", "shop", "ticket"])
        for name, family in served.items():
            self.assertEqual(family, json.loads((self.families / f"{name}.json").read_text()))


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

    def test_the_python_module_reads_what_the_router_sends(self) -> None:
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

    def test_the_typescript_module_compiles_and_its_types_are_exact(self) -> None:
        project = self.directory / "ts"
        project.mkdir()
        module = self.generated("ts", "--families", self.families)
        (project / "own.ts").write_text(module, encoding="utf-8")
        shutil.copy(HERE / "types.ts", project)
        self.assertEqual(compiled(project), ("", 0))


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

    def test_typescript_compiles(self) -> None:
        project = self.generated()
        (project / "types.ts").write_text("export {};")
        self.assertEqual(compiled(project), ("", 0))

    def test_a_family_may_have_commands_alone(self) -> None:
        project = self.generated(
            '{"x-commands": {"go": {"request": {"type": "object"}, "reply": {"type": "object"}}}}'
        )
        odd = module_of(project / "odd_families.py")
        self.assertEqual((odd.family.events, list(odd.family.commands)), ({}, ["go"]))
        (project / "types.ts").write_text("export {};")
        self.assertEqual(compiled(project), ("", 0))


class Refused(unittest.TestCase):
    def test_a_family_that_is_refused_is_named_with_file_and_place(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            families = Path(directory)
            shop = json.loads(SHOP.read_text())
            shop["$defs"]["Line"]["properties"]["sku"] = {"not": {"type": "string"}}
            (families / "shop.json").write_text(json.dumps(shop))
            (families / "torn.json").write_text('{"oneOf": [')
            problems = [
                "shop.json: at /$defs/Line/properties/sku/not: the keyword `not` is not supported",
                "torn.json: EOF while parsing a list at line 1 column 11",
            ]
            for command, code in [
                (("serve", "--dev", "--families", families), 2),
                (("check", "--dev", "--families", families), 1),
                (("codegen", "--lang", "ts", "--families", families, "--out", families / "a.ts"), 1),
                (("publish", "order.placed", "--families", families, "--data", "{}"), 2),
            ]:
                done = rivulet(*command)
                self.assertEqual(done.returncode, code, command)
                for problem in problems:
                    self.assertIn(problem, done.stderr, command)

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
