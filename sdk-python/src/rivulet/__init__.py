"""The Rivulet protocol: its types, patterns, user ids, and frames to and from text."""

from rivulet._generated import *  # noqa: F403
from rivulet._wire import Envelope, Model, UnknownEvent
from rivulet.errors import InvalidPattern, InvalidUserId, RivuletError
from rivulet.family import Command, Family
from rivulet.pattern import Pattern
from rivulet.protocol import CommandFrame, Received, Rejected, decode, encode
from rivulet.subject import escape_user_id, unescape_user_id

__all__ = [
    "Command",
    "CommandFrame",
    "Envelope",
    "Family",
    "InvalidPattern",
    "InvalidUserId",
    "Model",
    "Pattern",
    "Received",
    "Rejected",
    "RivuletError",
    "UnknownEvent",
    "decode",
    "encode",
    "escape_user_id",
    "unescape_user_id",
]
