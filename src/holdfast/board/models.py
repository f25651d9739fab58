"""
What are the things on a board, and what may be asked about them?

The same values are what routes read and write, and what `/openapi.json` describes.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

#: A text that every store takes, and one on one line; neither all blank.
_TEXT = r"^\s*[^\s\0][^\0]*(?![\s\S])"
_LINE = r"^[^\S\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*(?![\s\S])"

Name = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=_LINE, description="1 to 100 characters on one line, not all blank")
]
Title = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=_TEXT, description="1 to 500 characters, not all blank, no NUL")
]
Description = Annotated[str, Meta(max_length=10_000, pattern=r"^[^\0]*(?![\s\S])")]
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\0]+(?![\s\S])")]
Index = Annotated[int, Meta(ge=0, le=1_000_000, description="0-based; beyond the end means the end")]


class Person(Struct, frozen=True):
    """Somebody who can be given a task."""

    id: str
    name: str
    email: str | None


class TaskList(Struct, frozen=True, rename="camel"):
    """A column of a board."""

    id: str
    board_id: str
    name: str
    position: int


class Board(Struct, frozen=True, rename="camel"):
    """A board, without what is on it. Its id is the name of its room."""

    id: str
    name: str
    created_at: str


class BoardWithLists(Struct, frozen=True, rename="camel"):
    """A board and its columns, in their order."""

    id: str
    name: str
    created_at: str
    lists: list[TaskList]


class Task(Struct, frozen=True, rename="camel"):
    """A card. Times are ISO 8601, UTC, microseconds; `updatedAt` only ever grows."""

    id: str
    list_id: str
    title: str
    description: str | None
    assignee_id: str | None
    position: int
    created_at: str
    updated_at: str


# What is asked.


class Login(Struct, frozen=True):
    """Sign in by name; a new name makes a new person."""

    name: Name


class NewBoard(Struct, frozen=True):
    """A board to be made, with the usual three lists."""

    name: Name


class BoardPatch(Struct, frozen=True):
    """What to change about a board."""

    name: Name


class NewList(Struct, frozen=True, rename="camel"):
    """A list to be made, at the end of its board."""

    board_id: Id
    name: Name


class ListPatch(Struct, frozen=True):
    """What to change about a list."""

    name: Name


class ListMove(Struct, frozen=True):
    """Where to put a list."""

    position: Index


class NewTask(Struct, frozen=True, rename="camel"):
    """A task to be made, at the end of its list."""

    list_id: Id
    title: Title
    description: Description | None = None
    assignee_id: Id | None = None


class TaskPatch(Struct, frozen=True, rename="camel"):
    """What to change about a task: the fields that are there."""

    title: Title | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    assignee_id: Id | UnsetType | None = UNSET


class TaskMove(Struct, frozen=True, rename="camel"):
    """Where to put a task."""

    list_id: Id
    position: Index
