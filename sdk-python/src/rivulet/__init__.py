"""The types of the Rivulet protocol."""

from rivulet._generated import *  # noqa: F403
from rivulet._wire import Envelope, Model, UnknownEvent

__all__ = ["Envelope", "Model", "UnknownEvent"]
