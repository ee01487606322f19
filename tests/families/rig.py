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
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
BINARY = Path(os.environ.get("RIVULET_BINARY", ROOT / "target/debug/rivulet")).resolve()
SHOP = ROOT / "examples/families/shop.json"
# How long anything may take that is waited for.
LIMIT = 120

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
    """What the TypeScript compiler says of a directory, in which the SDK is installed."""
    package = project / "node_modules/rivulet-client"
    package.parent.mkdir(parents=True)
    package.symlink_to(ROOT / "sdk-ts")
    (project / "package.json").write_text('{"type": "module"}')
    options = {
        "strict": True,
        "noEmit": True,
        "target": "esnext",
        "module": "nodenext",
        "exactOptionalPropertyTypes": True,
        "allowImportingTsExtensions": True,
        "skipLibCheck": True,
        "typeRoots": [str(ROOT / "node_modules/@types")],
        "types": ["node"],
    }
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    command = [ROOT / "node_modules/.bin/tsc", "-p", project]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.returncode


async def next_of(client: ClientConnection, wanted: str) -> dict[str, Any]:
    """The next frame, which is of this type."""
    frame = json.loads(await client.recv())
    assert frame["type"] == wanted, frame
    return frame
