"""Which paths ZooKeeper accepts.

Source: PathUtils.validatePath of ZooKeeper 3.8, which looks at UTF-16 units: so a
character beyond the basic plane is refused, as its surrogates are.

A path found in the tree is valid, since it was checked when it was created.  So only new
names and paths that were not found need these functions.
"""

from __future__ import annotations

import re
from typing import Final

_PLAIN_NAME: Final = re.compile(rb"(?!\.\.?\Z)[ -.0-~]+")
"""Printable ASCII without `/`; not `.` or `..`."""

_REFUSED_CHARACTER: Final = re.compile("[\0-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]")


def is_name(name: bytes) -> bool:
    """Whether one part of a path, without slashes, may name a znode."""
    if _PLAIN_NAME.fullmatch(name):
        return True
    if name in (b"", b".", b".."):
        return False
    try:
        return _REFUSED_CHARACTER.search(name.decode()) is None
    except UnicodeDecodeError:
        return False


def is_path(path: bytes) -> bool:
    """Whether a whole path is one that a znode could have."""
    if path == b"/":
        return True
    return path.startswith(b"/") and all(map(is_name, path[1:].split(b"/")))
