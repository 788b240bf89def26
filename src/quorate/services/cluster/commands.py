"""What the cluster group decides, one command at a time, and what it knows of a member.

`expected` is the version that the asker saw, 0 for any: a person who looked at one list of
members must not change another.  What nodes submit by themselves has none where it cannot
do harm twice.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

NOBODY: Final = -1
"""In place of a node's id."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One member as the cluster group knows it."""

    node: int
    address: str
    """host:port for the other nodes, as its settings say it."""
    admin: str
    """host:port of its admin listener; empty until it first came."""
    incarnation: str
    """Of the data folder that it came with last; empty until it first came."""
    voter: bool
    refilling: bool = False
    """It voted under another incarnation, and votes again as soon as it may."""
    replaces: int = NOBODY
    """The member that leaves when this one votes."""
    voting_since: int = 0
    """The version that made it a voter: its promotion is under way until every group has reached that."""


class Command(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all commands."""


class Form(Command, frozen=True):
    """The first members, all under the incarnations with which they met; version 1."""

    cluster_id: str
    members: list[Member]
    groups: list[int]


class Add(Command, frozen=True):
    """A new learner; with `replaces` it votes in that member's place as soon as it may."""

    expected: int
    node: int
    address: str
    replaces: int = NOBODY


class Promote(Command, frozen=True):
    """A learner is to vote."""

    expected: int
    node: int


class Remove(Command, frozen=True):
    """A member leaves.  What is under way for its sake ends: its promotion, and that it replaces another."""

    expected: int
    node: int


class Swap(Command, frozen=True):
    """A learner is to vote, and the member that it replaces leaves, in one version."""

    expected: int
    node: int


class Bind(Command, frozen=True):
    """A learner came for the first time, or with another folder."""

    node: int
    incarnation: str
    address: str
    admin: str


class Refill(Command, frozen=True):
    """A voter came back with another folder: it is a learner until it has everything again."""

    node: int
    incarnation: str
    address: str
    admin: str


class Moved(Command, frozen=True):
    """A member came back with its own folder and other addresses.  The version stays."""

    node: int
    incarnation: str
    address: str
    admin: str


class Reached(Command, frozen=True):
    """The configuration of that version is settled in that group."""

    group: int
    version: int


class Recover(Command, frozen=True):
    """The quorum is gone for good: this member alone goes on, under a new cluster id."""

    cluster_id: str
    member: Member
    groups: list[int]
    version: int = 0
    """At least this, where a group's log knows of a later version than the cluster group's."""


AnyCommand: TypeAlias = Form | Add | Promote | Remove | Swap | Bind | Refill | Moved | Reached | Recover

_DECODER: Final = msgspec.msgpack.Decoder(AnyCommand)


def encode(command: AnyCommand) -> bytes:
    return msgspec.msgpack.encode(command)


def decode(data: bytes) -> AnyCommand:
    """Raises ValueError that says what is wrong with the bytes."""
    try:
        command: AnyCommand = _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"not a command to the cluster group: {error}") from error
    return command
