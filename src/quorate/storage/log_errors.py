"""What can be wrong with a log."""

from __future__ import annotations


class CorruptLog(Exception):
    """Bytes that may have been acknowledged are missing or damaged.  The node must not vote on what is left.

    `file` is relative to the data folder, `offset` in bytes from its start.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file} at offset {offset}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


class UnknownLogFormat(Exception):
    """An intact log of a format that this program does not read: nothing is wrong with the data."""

    def __init__(self, file: str, version: int, known: int) -> None:
        super().__init__(f"{file} has log format {version}; this version of Quorate reads format {known}")
        self.file = file
        self.version = version


class LogSyncFailed(Exception):
    """The disk refused a write or a sync that it had room for; what is durable is unknown.

    Never retried: after a failed fsync the kernel may have dropped the very pages that it
    could not write, so a second, successful fsync would prove nothing.  The node stops.
    """
