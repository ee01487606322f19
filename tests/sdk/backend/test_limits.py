"""What a schema says beside the types: the publisher refuses what the router rejects, and nothing else."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from world import Router, User, binary

from rivulet_client import Rejected
from rivulet_client.nats import Publisher, connect
from rivulet_client.protocol import Decoder

FIELDS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "minLength": 2, "maxLength": 3},
    "code": {"type": "string", "pattern": r"^\d+-[a-z]$"},
    "part": {"$ref": "#/$defs/Part", "maxLength": 2},
    "maybe": {"type": ["string", "null"], "minLength": 2},
    "either": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}]},
    "items": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 2},
    "kinds": {"type": "array", "items": {}, "uniqueItems": True},
    "counts": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "propertyNames": {"pattern": "^[a-z]+$"},
        "minProperties": 1,
        "maxProperties": 2,
    },
    "state": {"enum": ["on", "off"], "maxLength": 3},
    "half": {"const": 0.5},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "duration": {"type": "string", "format": "duration"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "email": {"type": "string", "format": "email"},
    "hostname": {"type": "string", "format": "hostname"},
    "uri": {"type": "string", "format": "uri"},
    "pointer": {"type": "string", "format": "json-pointer"},
    "template": {"type": "string", "format": "uri-template"},
    "odd": {"type": "string", "format": "what-nobody-knows"},
}
DATA = {"type": "object", "properties": FIELDS, "minProperties": 1, "maxProperties": 3}
FAMILY = {
    "$defs": {"Part": {"type": "string", "pattern": "^[a-z]"}, "Made": DATA},
    "oneOf": [{"properties": {"type": {"const": "thing.made"}, "data": {"$ref": "#/$defs/Made"}}}],
}
UUID = "01234567-89ab-CDEF-0123-456789abcdef"
GOOD: list[dict[str, Any]] = [
    {"name": "é😀"},
    {"name": "abc", "more": 1},
    {"code": "12-a"},
    {"part": "ab"},
    {"maybe": "ab"},
    {"maybe": None, "name": "ab"},
    {"either": "ab"},
    {"either": 1000},
    {"items": ["a", "b"]},
    {"kinds": [1, True, "1", [1], {"a": 1}]},
    {"counts": {"a": 1}},
    {"state": "between"},
    {"half": 0.5},
    {"date": "2024-02-29"},
    {"time": "12:00:00.5+01:00"},
    {"time": "12:00:00Z"},
    {"duration": "P1DT2H"},
    {"duration": "P2W"},
    {"uuid": UUID},
    {"ipv4": "127.0.0.1"},
    {"ipv6": "::ffff:127.0.0.1"},
    {"email": "ada@example.org"},
    {"hostname": "a-b.example"},
    {"uri": "https://example.org/a?b#c"},
    {"pointer": "/a~1b/0"},
    {"pointer": ""},
    {"template": "/a/{b}"},
    {"odd": "\n"},
]
BAD: list[dict[str, Any]] = [
    {},
    {"name": "ab", "code": "1-a", "part": "a", "odd": ""},
    {"name": "a"},
    {"name": "abcd"},
    {"code": "1-a\n"},
    {"code": "١-a"},
    {"part": "abc"},
    {"part": "1"},
    {"maybe": "a"},
    {"either": "abc"},
    {"items": []},
    {"items": ["a", "b", "c"]},
    {"items": [""]},
    {"kinds": [1, 1.0]},
    {"kinds": [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]},
    {"counts": {}},
    {"counts": {"a": 1, "b": 2, "c": 3}},
    {"counts": {"A": 1}},
    {"half": 0.25},
    {"date": "2023-02-29"},
    {"date": "20240229"},
    {"time": "12:00:00"},
    {"duration": "1 day"},
    {"duration": "PT"},
    {"uuid": UUID.replace("-", "")},
    {"ipv4": "127.0.0.256"},
    {"ipv6": "127.0.0.1"},
    {"email": "ada"},
    {"hostname": "-a"},
    {"uri": "/relative"},
    {"pointer": "a"},
    {"template": "{a"},
]


class Limits(unittest.IsolatedAsyncioTestCase):
    router: Router
    module: ModuleType

    @classmethod
    def setUpClass(cls) -> None:
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        families, out = directory / "families", directory / "things.py"
        families.mkdir()
        (families / "thing.json").write_text(json.dumps(FAMILY))
        generate = [binary(), "codegen", "--lang", "python", "--families", families, "--out", out]
        subprocess.run(generate, check=True, capture_output=True)
        spec = importlib.util.spec_from_file_location("things", out)
        assert spec is not None
        assert spec.loader is not None
        cls.module = importlib.util.module_from_spec(spec)
        # Pydantic looks names up where a class says that it is from.
        sys.modules["things"] = cls.module
        spec.loader.exec_module(cls.module)
        cls.router = cls.enterClassContext(Router(RIVULET_FAMILIES=str(families)))

    async def asyncSetUp(self) -> None:
        self.nats = await self.enterAsyncContext(await connect(data_dir=self.router.data_dir))
        self.publisher = Publisher(self.nats, families=[self.module.family])

    async def test_what_the_router_takes_is_published(self) -> None:
        async with User.of(self.router, "ada") as ada:
            for data in GOOD:
                with self.subTest(data):
                    await self.publisher.publish(data, event_type="thing.made", user="ada")
                    # What may be absent is absent where it is None.
                    written = {name: value for name, value in data.items() if value is not None}
                    self.assertEqual((await ada.next("thing.made"))["data"], written)

    async def test_what_the_router_rejects_is_not_published(self) -> None:
        rejected = await self.nats.subscribe("rivulet.rejected.>")
        await self.nats.flush()
        for data in BAD:
            with self.subTest(data):
                with self.assertRaises(ValidationError):
                    await self.publisher.publish(data, event_type="thing.made", user="ada")
                headers = {"Rivulet-User": "ada"}
                await self.nats.jetstream().publish("thing.made", json.dumps(data).encode(), headers=headers)
                message = await rejected.next_msg(timeout=60)
                self.assertEqual(json.loads(message.data), data)
                self.assertRegex((message.headers or {})["Rivulet-Rejected-Rule"], "^schema")

    async def test_a_model_is_checked_where_it_is_built_and_never_where_it_was_received(self) -> None:
        for data in BAD:
            with self.subTest(data):
                with self.assertRaises(ValidationError):
                    self.module.Made.model_validate(data)
                decoder = Decoder([self.module.family])
                event = decoder.event({"type": "thing.made", "seq": 1, "data": data})
                self.assertNotIsInstance(event, Rejected)
                # What was received and is broken is not published again either.
                with self.assertRaises(ValidationError):
                    await self.publisher.publish(event.data, event_type="thing.made", user="ada")


if __name__ == "__main__":
    unittest.main()
