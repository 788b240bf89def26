"""Bugs around lost and damaged folders: what a folder has forgotten must not count (docs/membership.md)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Change, Mutant

_NODE: Final = "quorate.node.node"
_FOLDER: Final = "quorate.node.data_folder"
_ROSTER: Final = "quorate.node.roster"
_STORE: Final = "quorate.services.cluster.store"

MUTANTS: Final = (
    Mutant(
        "wiped_node_votes",
        "Election Safety and Leader Completeness: a wiped node is let in as the voter that it was, and forgets for it",
        (
            Change(
                _ROSTER,
                """        known = member.incarnation if member is not None else formed_with or ""
""",
                """        known = member.incarnation if member is not None else formed_with or ""
        if known:
            return
""",
            ),
            Change(
                _NODE,
                "        elif self.neighbours.unheeded and (peer, group_id) in",
                "        elif False and (peer, group_id) in",
            ),
        ),
    ),
    Mutant(
        "wiped_node_never_refilled",
        "the cluster heals: a wiped first member comes as if it were known, so that nobody has it refilled",
        (
            Change(
                _ROSTER,
                "if peer.formation.get(self.node) == self._identity.incarnation:",
                "if self.node in peer.formation:",
            ),
        ),
    ),
    Mutant(
        "new_folder_keeps_incarnation",
        "a voter is a folder, not a machine: what a lost or damaged one had vouched for is asked of an empty one",
        (
            Change(
                _FOLDER,
                "Identity.open(disk, config.cluster, config.node, new_incarnation(), ",
                'Identity.open(disk, config.cluster, config.node, f"{config.node:032x}", ',
            ),
        ),
    ),
    Mutant(
        "refilled_node_votes_at_once",
        "a refilled node is a learner first: it is given its vote back together with its new folder's name",
        (
            Change(
                _STORE,
                """            voter=False,
            refilling=returning is None,
""",
                """            voter=True,
            refilling=False,
""",
            ),
        ),
    ),
    Mutant(
        "refilled_node_never_votes_again",
        "the cluster heals: a refilled node stays a learner, and the next failure costs the quorum",
        (
            Change(
                _STORE,
                """                if member.refilling:
                    return Promote(self.version, node)
""",
                "",
            ),
        ),
    ),
)
