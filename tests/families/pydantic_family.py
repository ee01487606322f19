"""A family as somebody writes it with Pydantic; prints its schema."""

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter


class Person(BaseModel):
    name: str
    mail: str | None = None


class TicketOpened(BaseModel):
    """Somebody needs help."""

    ticket_id: str
    by: Person
    opened_at: datetime
    labels: list[str] = []
    place: tuple[float, float]
    urgency: Literal["low", "high"]
    parent: str | None
    counts: dict[str, int]


class TicketClosed(BaseModel):
    """It is done."""

    ticket_id: str


class Opened(BaseModel):
    type: Literal["ticket.opened"]
    data: TicketOpened


class Closed(BaseModel):
    type: Literal["ticket.closed"]
    data: TicketClosed


class Assign(BaseModel):
    ticket_id: str
    to: Person


family = TypeAdapter(Annotated[Opened | Closed, Field(discriminator="type")]).json_schema()
# A command beside the events: its models' definitions move into the family's own.
request = Assign.model_json_schema(ref_template="#/$defs/{model}")
family["$defs"] |= request.pop("$defs") | {"Assign": request}
family["x-commands"] = {"assign_ticket": {"request": {"$ref": "#/$defs/Assign"}, "reply": {"type": "object"}}}
print(json.dumps(family))
