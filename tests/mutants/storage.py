"""Bugs between the log, the snapshots and the disk."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_LOG: Final = "quorate.storage.log"
_GROUPS: Final = "quorate.storage.log_groups"
_BLOCKS: Final = "quorate.storage.log_blocks"
_RECOVERY: Final = "quorate.storage.log_recovery"
_SNAPSHOTS: Final = "quorate.storage.snapshots"

MUTANTS: Final = (
    Mutant(
        "log_without_fsync",
        "acknowledged entries and votes are lost with the power",
        (
            Change(
                _LOG,
                """                active.file.sync()
                self._became_durable(active, end)
""",
                """                self._became_durable(active, end)
""",
            ),
        ),
    ),
    Mutant(
        "fsync_error_ignored",
        "an fsync that failed made nothing durable, and nobody may vouch for it",
        (
            Change(
                _LOG,
                """                active.file.sync()
                self._became_durable(active, end)
        except OSError as error:
            raise self._failed(error) from error
""",
                """                active.file.sync()
                self._became_durable(active, end)
        except OSError:
            self._became_durable(active, end)
""",
            ),
        ),
    ),
    Mutant(
        "segment_without_folder_sync",
        "a power loss takes a segment's name away, and with it all that was acknowledged out of it",
        (
            Change(
                _LOG,
                """            file.sync()
            self._disk.sync_folder(self._folder)
        except OSError as error:
""",
                """            file.sync()
        except OSError as error:
""",
            ),
        ),
    ),
    Mutant(
        "segments_deleted_too_early",
        "a crash before the log says that segments may be missing leaves one that misses them",
        (
            Change(
                _LOG,
                """            self._oldest_needed = needed
            self._gathered""",
                """            self._oldest_needed = needed
            self._delete_before(needed)
            self._gathered""",
            ),
        ),
    ),
    Mutant(
        "segment_head_without_state",
        "term and vote go when the segment that they were written to is deleted",
        (
            Change(
                _GROUPS,
                """        if self.state is not None:
            records.append(SaveState(self.state))
""",
                "",
            ),
        ),
    ),
    Mutant(
        "accept_torn_record",
        "a write that a crash tore is taken for what was meant to be written",
        (
            Change(
                _BLOCKS,
                """    if value(body) != body_crc:
        return BadBytes(offset, "the block's checksum is wrong")
""",
                "",
            ),
        ),
    ),
    Mutant(
        "recovery_skips_last_block_of_segment",
        "what was written last into a full segment is missing after a restart",
        (
            Change(
                _RECOVERY,
                "if block.offset == end:",
                "if block.offset == end or (isinstance(block, Block) and block.end == end):",
            ),
        ),
    ),
    Mutant(
        "first_hard_state_wins",
        "Election Safety: of several hard states in the log the first is recovered, not the last",
        (
            Change(
                _GROUPS,
                """            self.state = record.data
""",
                """            self.state = self.state or record.data
""",
            ),
        ),
    ),
    Mutant(
        "snapshot_without_fsync",
        "the log lets go of entries for a snapshot that a power loss tears",
        (
            Change(
                _SNAPSHOTS,
                """_END_BODY.pack(self._slice_count, self._slice_bytes))
        await self._file.sync_aside()
""",
                """_END_BODY.pack(self._slice_count, self._slice_bytes))
""",
            ),
        ),
    ),
    Mutant(
        "skip_folder_sync",
        "the log lets go of entries for a snapshot whose name a power loss takes away",
        (
            Change(
                _SNAPSHOTS,
                """        self._disk.sync_folder(self._folder)
        info = self._info
""",
                """        info = self._info
""",
            ),
        ),
    ),
    Mutant(
        "received_snapshot_without_fsync",
        "a follower's log begins behind a snapshot from its leader that a power loss tears",
        (
            Change(
                _SNAPSHOTS,
                """            await self._file.sync_aside()
            self._file.close()
            self._disk.rename(self._partial_path, self._info.path)
            self._disk.sync_folder(self._folder)
        except BaseException:
""",
                """            self._file.close()
            self._disk.rename(self._partial_path, self._info.path)
            self._disk.sync_folder(self._folder)
        except BaseException:
""",
            ),
        ),
    ),
)
