"""Commands know what answers them, and the built-in family holds all that the module brings."""

import unittest

from rivulet_client import EVENT_TYPES, Command, CreateBlob, CreateBlobReply, Envelope, Model
from rivulet_client._generated import family


class Made(Model):
    blob_id: str


class Make(Command[Made]):
    command_name = "make"
    name: str


class MakeMore(Make):
    command_name = "make_more"


class Families(unittest.TestCase):
    def test_a_command_knows_its_reply(self) -> None:
        for command, reply in [(CreateBlob, CreateBlobReply), (Make, Made), (MakeMore, Made)]:
            self.assertIs(command.reply_model(), reply)
        with self.assertRaises(TypeError):
            Command.reply_model()

    def test_a_command_is_a_model_of_its_request(self) -> None:
        self.assertEqual(Make(name="a").model_dump(), {"name": "a"})

    def test_the_builtin_family_is_whole(self) -> None:
        self.assertEqual(family.events.keys(), EVENT_TYPES)
        for event_type, envelope in family.events.items():
            self.assertTrue(issubclass(envelope, Envelope))
            self.assertEqual(envelope.model_fields["type"].annotation.__args__, (event_type,))
        self.assertIs(family.commands["create_blob"], CreateBlob)
        for name, command in family.commands.items():
            self.assertEqual(command.command_name, name)


if __name__ == "__main__":
    unittest.main()
