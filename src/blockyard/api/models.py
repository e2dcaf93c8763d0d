"""What several kinds of objects have in common in the API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Input(BaseModel):
    """What clients send: nothing in it is passed over."""

    model_config = ConfigDict(extra="forbid", str_max_length=4096)


class Counters(BaseModel):
    """What a logical unit has done since its worker began."""

    read_ops: int
    read_bytes: int
    write_ops: int
    write_bytes: int
    other_ops: int
    errors: int = Field(description="commands that failed, unit attentions and miscompares aside")
