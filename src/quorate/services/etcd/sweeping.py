"""Gives back the memory of what compactions forgot, in small steps behind the decision.

The sweep goes once through the history between one compaction and the next, and looks at each change's key: what was
before the change is forgotten, and so is the change itself where another followed it or where it is a tombstone.  So a
compaction costs as much as there were changes since the last, however many keys there are.

What it has passed and left in the history is in the index, and the other way about; ahead of it the index may have
forgotten what the history still holds.
"""

from __future__ import annotations

from quorate.services.etcd.keyspace import Keyspace
from quorate.services.etcd.versions import Version


class Sweep:
    """Where the sweep is: before it are all earlier revisions, and so many versions of `revision` that are kept.

    A number of versions, not only a revision, because one deletion may be of a million keys.
    """

    __slots__ = ("_keyspace", "kept", "revision")

    def __init__(self, keyspace: Keyspace, revision: int = 0, kept: int = 0) -> None:
        self._keyspace = keyspace
        self.revision = revision
        self.kept = kept

    def step(self, max_versions: int, compacted_revision: int) -> bool:
        """Look at up to so many versions.  True while some are left that are not later than `compacted_revision`."""
        while max_versions > 0:
            looked_at = self._batch(max_versions, compacted_revision)
            if not looked_at:
                return False
            max_versions -= looked_at
        return True

    def _batch(self, max_versions: int, compacted_revision: int) -> int:
        """Of one chunk of the history; how many versions were looked at."""
        history = self._keyspace.history
        place, start = history.place(self.revision)
        start += self.kept
        while start >= len(history.chunks[place]):
            start -= len(history.chunks[place])
            place += 1
            if place == len(history.chunks):
                return 0
        chunk = history.chunks[place]
        stop = min(start + max_versions, len(chunk))
        batch = [version for version in chunk[start:stop] if version.mod_revision <= compacted_revision]
        if not batch:
            return 0
        kept, behind = self._look_at(batch, compacted_revision)
        last_revision = batch[-1].mod_revision
        if last_revision != self.revision:
            self.revision, self.kept = last_revision, 0
        self.kept += sum(version.mod_revision == last_revision for version in kept)
        history.replace(place, start, start + len(batch), kept)
        # Only now, since they may be in the same chunk.
        for version in behind:
            history.remove(version)
        return len(batch)

    def _look_at(self, batch: list[Version], compacted_revision: int) -> tuple[list[Version], list[Version]]:
        """(those of the batch that are kept, those behind the sweep that were kept until now and are not any more)"""
        kept: list[Version] = []
        behind: list[Version] = []
        for version in batch:
            first, forgotten = self._keyspace.trim(version.key, compacted_revision)
            if first is version:
                kept.append(version)
            # Versions of the same revision or later ones are looked at in their turn, or were in this one.
            behind += (old for old in forgotten if old.mod_revision < version.mod_revision)
        return kept, behind
