"""Events as a table: its columns and their dtypes."""

import unittest
from typing import Any

from rivulet_client import Envelope, decode
from rivulet_client.pandas import to_dataframe

BLOB = (
    '{"type":"blob.created","seq":7,"time":"2026-01-31T12:00:00.123456789Z","data":{"blob_id":"b1","user_id":"u",'
    '"processor_id":"p","schema_id":"s","preview":"","created_at":"2026-01-31T13:00:00+01:00"}}'
)
STATUS = (
    '{"type":"processor.status","seq":9,"data":{"blob_id":"b1","processor_id":"p","status":"processing",'
    '"progress":1}}'
)
COMPLETED = (
    '{"type":"processor.completed","seq":10,"data":{"blob_id":"b1","processor_id":"p","duration_ms":12.0}}'
)
BOOK = (
    '{"type":"book.updated","data":{"book_id":"k",'
    '"chapter_added":{"chapter_num":3,"blob_id":"b1","title":"t"}}}'
)
TYPING = '{"type":"conversation.typing","data":{"conversation_id":"c","typist_id":"t","typing":true}}'
TIME = "datetime64[us, UTC]"


def events(*texts: str) -> list[Envelope]:
    found: list[Any] = [event for text in texts for event in decode(text)]
    assert all(isinstance(event, Envelope) for event in found), found
    return found


def dtypes(*texts: str) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in to_dataframe(events(*texts)).dtypes.items()}


class Dtypes(unittest.TestCase):
    def test_of_the_models_even_where_all_is_absent(self) -> None:
        self.assertEqual(
            dtypes(BLOB),
            {
                "type": "category",
                "seq": "Int64",
                "time": TIME,
                "blob_id": "string",
                "user_id": "string",
                "processor_id": "string",
                "schema_id": "string",
                "preview": "string",
                "book_id": "string",
                "created_at": TIME,
            },
        )
        found = dtypes(STATUS, COMPLETED, TYPING)
        self.assertEqual(
            {
                name: found[name]
                for name in ("status", "progress", "message", "duration_ms", "typing", "time")
            },
            {
                "status": "category",
                "progress": "float64",
                "message": "string",
                "duration_ms": "Int64",
                "typing": "boolean",
                "time": TIME,
            },
        )

    def test_of_nothing(self) -> None:
        self.assertEqual(dtypes(), {"type": "category", "seq": "Int64", "time": TIME})

    def test_of_values_where_no_model_says(self) -> None:
        made = (
            '{{"type":"acme.made","data":{{"a":"x","b":1,"c":{},"d":true,"e":[1],"f":{{"k":1}},"g":null,'
            '"h":{}}}}}'
        )
        found = dtypes(made.format("1", "1"), made.format("2.5", f"{2**70}"))
        self.assertEqual(
            [found[name] for name in "abcdefh"],
            ["string", "Int64", "float64", "boolean", "object", "object", "object"],
        )
        self.assertNotIn("g", found)

    def test_of_fields_on_which_two_disagree(self) -> None:
        other = '{"type":"book.created","data":{"book_id":"k","note":1}}'
        another = '{"type":"book.created","data":{"book_id":"k","note":"n"}}'
        self.assertEqual(dtypes(other, another)["note"], "object")


class Values(unittest.TestCase):
    def test_rows_are_events_and_what_is_absent_is_missing(self) -> None:
        table = to_dataframe(events(BLOB, STATUS, COMPLETED, BOOK))
        self.assertEqual(
            list(table["type"]), ["blob.created", "processor.status", "processor.completed", "book.updated"]
        )
        self.assertEqual(
            [None if value != value else value for value in table["seq"].fillna(-1)], [7, 9, 10, -1]
        )
        self.assertEqual(table["time"][0].isoformat(), "2026-01-31T12:00:00.123456+00:00")
        self.assertEqual(table["created_at"][0].isoformat(), "2026-01-31T12:00:00+00:00")
        self.assertEqual(table["duration_ms"][2], 12)
        self.assertEqual(list(table["duration_ms"].isna()), [True, True, False, True])
        self.assertEqual(table["chapter_added.chapter_num"][3], 3)
        self.assertEqual(table["blob_id"].isna().sum(), 1)
        self.assertEqual(table["progress"].mean(), 1.0)

    def test_fields_named_as_a_column_of_ours(self) -> None:
        (row,) = to_dataframe(
            events('{"type":"acme.made","seq":1,"data":{"type":"t","seq":2,"time":"x"}}')
        ).to_dict("records")
        self.assertEqual(
            (row["type"], row["seq"], row["data.type"], row["data.seq"]), ("acme.made", 1, "t", 2)
        )

    def test_an_iterator_will_do(self) -> None:
        self.assertEqual(len(to_dataframe(iter(events(BLOB, BLOB)))), 2)


if __name__ == "__main__":
    unittest.main()
