"""The conformance vectors of events, read through the generated models."""

import json
import unittest
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rivulet._generated import Event
from rivulet._wire import UnknownEvent

VECTORS = Path(__file__).resolve().parents[2] / "schemas" / "vectors"
EVENT = TypeAdapter(Event)
# Cases whose outcome differs here, with the reason; a stale one fails.
KNOWN_GAPS: dict[str, str] = {}


def outcome(wire: str) -> str:
    try:
        event = EVENT.validate_python(json.loads(wire))
    except ValidationError:
        return "reject"
    return "unknown" if isinstance(event, UnknownEvent) else "ok"


class Vectors(unittest.TestCase):
    def test_events(self) -> None:
        cases = json.loads((VECTORS / "events.json").read_text())
        self.assertGreaterEqual(len(cases), 50)
        differing = {case["name"] for case in cases if outcome(case["wire"]) != case["expect"]}
        self.assertEqual(differing, set(KNOWN_GAPS))

    def test_events_are_strict_to_build_and_frozen(self) -> None:
        event = EVENT.validate_python({"type": "book.created", "seq": 7, "data": {"book_id": "b"}})
        with self.assertRaises(ValidationError):
            event.data.book_id = "c"
        with self.assertRaises(ValidationError):
            type(event.data)(book_id=1)


if __name__ == "__main__":
    unittest.main()
