"""Runs every conformance vector, each as a test of its own; one that is a known gap must differ."""

import json
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rivulet_client import (
    EVENT_TYPES,
    SERVER_FRAMES,
    InvalidPattern,
    InvalidUserId,
    Pattern,
    Received,
    Rejected,
    RivuletError,
    decode,
    encode,
    escape_user_id,
    unescape_user_id,
)

RUNNER = "python"
VECTORS = Path(__file__).resolve().parents[2] / "schemas" / "vectors"

Case = dict[str, Any]


def vectors(file: str) -> list[Case]:
    return json.loads((VECTORS / file).read_text(encoding="utf-8"))


def known_gaps(file: str) -> set[str]:
    """The names of the cases whose outcome here is known not to be the expected one."""
    gaps = vectors("known-gaps.json")
    return {name for gap in gaps if gap["runner"] == RUNNER and gap["file"] == file for name in gap["cases"]}


def outcome(received: Received) -> str:
    if isinstance(received, Rejected):
        return "reject"
    if received.type in SERVER_FRAMES:
        return "frame"
    return "event" if received.type in EVENT_TYPES else "unknown"


class Vector(unittest.TestCase):
    """One case."""

    def __init__(self, file: str, case: Case, known_gap: bool) -> None:
        super().__init__("run_case")
        self.file = file
        self.case = case
        self.known_gap = known_gap

    def __str__(self) -> str:
        return f"{self.file}: {name_of(self.case)}"

    def run_case(self) -> None:
        check = CHECKS[self.file][0]
        if self.known_gap:
            with self.assertRaises(AssertionError, msg="no gap any more: take it from known-gaps.json"):
                check(self, self.case)
        else:
            check(self, self.case)

    def check_event(self, case: Case) -> None:
        expected = "event" if case["expect"] == "ok" else case["expect"]
        self.assertEqual([outcome(received) for received in decode(case["wire"])], [expected])

    def check_server_frame(self, case: Case) -> None:
        self.assertEqual([outcome(received) for received in decode(case["wire"])], case["expect"])

    def check_client_frame(self, case: Case) -> None:
        try:
            frame = json.loads(case["wire"], parse_constant=refuse_constant)
        except ValueError:
            # A gap, as an SDK writes text and never reads a client's.
            self.fail("no value has this fault")
        if case["expect"] == "ok":
            self.assertEqual(json.loads(encode(frame)), json.loads(case["canonical"]))
        else:
            with self.assertRaises(RivuletError) as raised:
                encode(frame)
            error = raised.exception
            self.assertEqual((error.code, error.field), (case["code"], case.get("field")))

    def check_pattern(self, case: Case) -> None:
        if case.get("valid") is False:
            with self.assertRaises(InvalidPattern) as raised:
                Pattern(case["pattern"])
            self.assertEqual(raised.exception.reason, case["reason"])
            return
        pattern = Pattern(case["pattern"])
        self.assertEqual(pattern.text, case["pattern"])
        if "within" in case:
            self.assertEqual(pattern.within(Pattern(case["within"])), case["is_within"])
        elif "type" in case:
            self.assertEqual(pattern.matches(case["type"]), case["matches"])
        else:
            self.assertTrue(case["valid"])

    def check_user_id(self, case: Case) -> None:
        if "id" in case and "token" in case:
            self.assertEqual(escape_user_id(case["id"]), case["token"])
            self.assertEqual(unescape_user_id(case["token"]), case["id"])
            return
        with self.assertRaises(InvalidUserId) as raised:
            escape_user_id(case["id"]) if "id" in case else unescape_user_id(case["token"])
        self.assertEqual(raised.exception.reason, case["reason"])


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# How a case of each file is checked, and how many there are at least.
CHECKS: dict[str, tuple[Callable[[Vector, Case], None], int]] = {
    "events.json": (Vector.check_event, 110),
    "server-frames.json": (Vector.check_server_frame, 80),
    "client-frames.json": (Vector.check_client_frame, 70),
    "patterns.json": (Vector.check_pattern, 100),
    "user-ids.json": (Vector.check_user_id, 80),
}


def name_of(case: Case) -> str:
    return case.get("name") or json.dumps(case)


class Files(unittest.TestCase):
    def test_every_file_is_whole(self) -> None:
        for file, (_, least) in CHECKS.items():
            cases = vectors(file)
            self.assertGreaterEqual(len(cases), least, file)
            self.assertLessEqual(known_gaps(file), {name_of(case) for case in cases}, file)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, _: str | None) -> unittest.TestSuite:
    for file in CHECKS:
        gaps = known_gaps(file)
        tests.addTests(Vector(file, case, name_of(case) in gaps) for case in vectors(file))
    return tests


if __name__ == "__main__":
    unittest.main()
