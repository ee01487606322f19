"""What the vectors can't say: values that JSON has no text for, and what is left of a frame that was read."""

import json
import unittest
from datetime import UTC, datetime

from pydantic import ValidationError

from rivulet_client import (
    BlobCreatedEvent,
    BookCreated,
    BookCreatedEvent,
    CreateBlob,
    InvalidUserId,
    Model,
    Pattern,
    Rejected,
    RivuletError,
    decode,
    encode,
    escape_user_id,
    unescape_user_id,
)
from rivulet_client._wire import write_json

CREATED = (
    '{"type":"blob.created","data":{"blob_id":"b","user_id":"u","processor_id":"p","schema_id":"s",'
    '"preview":"","created_at":"TIME"}}'
)


class Decoding(unittest.TestCase):
    def test_times_are_utc_and_cut_to_microseconds(self) -> None:
        for text, expected in [
            ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
            ("2026-01-31T12:00:00.123456789+01:00", datetime(2026, 1, 31, 11, 0, 0, 123456, tzinfo=UTC)),
        ]:
            (event,) = decode(CREATED.replace("TIME", text))
            assert isinstance(event, BlobCreatedEvent)
            self.assertEqual(event.data.created_at, expected)
            self.assertEqual(event.data.created_at.utcoffset(), UTC.utcoffset(None))

    def test_events_are_strict_to_build_and_frozen(self) -> None:
        (event,) = decode('{"type":"book.created","seq":7,"data":{"book_id":"b"}}')
        assert isinstance(event, BookCreatedEvent)
        with self.assertRaises(ValidationError):
            event.data.book_id = "c"
        with self.assertRaises(ValidationError):
            BookCreated.model_validate({"book_id": 1})

    def test_depth_digits_and_half_characters_raise_nothing(self) -> None:
        deep = "[" * 100_000 + "]" * 100_000
        for text in [
            f'{{"type":"acme.made","data":{{"a":{deep}}}}}',
            f'{{"type":"acme.made","data":{{"a":{"9" * 10_000}}}}}',
            '{"type":"acme.made","data":{"a":"\ud800"}}',
        ]:
            (received,) = decode(text)
            self.assertIsInstance(received, Rejected)

    def test_a_rejected_frame_names_the_field_at_fault(self) -> None:
        (received,) = decode(
            '{"type":"gap","data":{"stream":"S@1","from_seq":1,"to_seq":-1,"reason":"evicted"}}'
        )
        assert isinstance(received, Rejected)
        self.assertEqual((received.error.code, received.error.field), ("INVALID_MESSAGE", "data.to_seq"))


class Halves(unittest.TestCase):
    """Half a surrogate pair, as JavaScript and Python print a text that was cut within an emoji."""

    def test_what_is_read_of_them_has_a_form_in_utf8(self) -> None:
        data = r'{"book_id":"\ud83d","title":"\\ud83d\ud83d\ude00\ude00","\ude00":[1]}'
        text = f'{{"type":"book.created","data":{data}}}'
        (event,) = decode(text)
        assert isinstance(event, BookCreatedEvent)
        self.assertEqual((event.data.book_id, event.data.title), ("\ufffd", "\\ud83d😀\ufffd"))
        self.assertEqual(event.data.model_extra, {"\ufffd": [1]})
        event.model_dump_json().encode()

    def test_a_command_with_them_is_written_as_it_is(self) -> None:
        frame = encode({"type": "create_blob", "data": CreateBlob(content="\ud83d", schema_id="s")})
        self.assertIn(r'"content":"\ud83d"', frame)
        frame = encode({"type": "ship", "data": {"\ud83d": "\ude00"}})
        self.assertIn(r'{"\ud83d":"\ude00"}', frame)

    def test_a_model_and_a_mapping_with_them_are_written(self) -> None:
        for value in [BookCreated(book_id="\ud83d"), {"book_id": "\ud83d"}]:
            self.assertEqual(write_json(value), rb'{"book_id":"\ud83d"}')
        self.assertEqual(write_json({"\ud83d": BookCreated(book_id="b")}), rb'{"\ud83d":{"book_id":"b"}}')
        with self.assertRaises(ValueError):
            write_json({"\ud83d": object()})


class Encoding(unittest.TestCase):
    def test_a_command_takes_a_model(self) -> None:
        frame = encode({"type": "create_blob", "data": CreateBlob(content="c", schema_id="s")})
        self.assertEqual(
            json.loads(frame), {"type": "create_blob", "data": {"content": "c", "schema_id": "s"}}
        )

    def test_null_stands_where_a_field_must_be_and_may_be_null(self) -> None:
        class Ask(Model):
            by: str | None
            note: str | None = None

        written = encode({"type": "ask", "data": Ask(by=None)})
        self.assertEqual(json.loads(written)["data"], {"by": None})

    def test_what_json_has_no_text_for_is_refused(self) -> None:
        for seq in [float("nan"), float("inf"), 2**53]:
            with self.assertRaises(RivuletError):
                encode({"type": "resume", "stream": "S@1", "seq": seq})
        for value in [float("nan"), object()]:
            with self.assertRaises((TypeError, ValueError)):
                encode({"type": "ship", "data": {"value": value}})


class Surrogates(unittest.TestCase):
    def test_half_of_a_pair_is_no_user_id_and_no_pattern(self) -> None:
        for refused in [escape_user_id, unescape_user_id]:
            with self.assertRaises(InvalidUserId):
                refused("\ud800")
        with self.assertRaises(RivuletError):
            Pattern("\ud800")


if __name__ == "__main__":
    unittest.main()
