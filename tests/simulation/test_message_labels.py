"""What diagrams say of messages: the words of each protocol."""

from __future__ import annotations

import pytest

from quorate.consensus.paxos import messages as paxos
from quorate.consensus.raft import messages as raft
from quorate.consensus.records import Entry
from quorate.consensus.replica import Message
from quorate.consensus.zab import messages as zab
from quorate.simulation.message_labels import generation_label, message_label

ENTRIES = (Entry(7, 3, b"a"), Entry(8, 3, b"b"))
BALLOT = 4_000_000_002


@pytest.mark.parametrize(
    ("message", "label"),
    [
        (raft.Append(3, 6, 3, 5, 1, ENTRIES), "Append 7..8 term 3 commit 5"),
        (raft.Append(3, 6, 3, 5, 1), "heartbeat term 3 round 1"),
        (raft.Vote(3, True, False), "Vote yes term 3"),
        (paxos.Prepare(BALLOT, 7), "Prepare ballot 4.2 from 7"),
        (
            paxos.Promise(BALLOT, 6, 7, 8, True, tuple(paxos.AcceptedValue(entry, 3) for entry in ENTRIES)),
            "Promise ballot 4.2, 2 accepted, chosen 6",
        ),
        (paxos.Accept(BALLOT, 8, 6, 1, ENTRIES[:1]), "Accept 7 ballot 4.2 chosen 6"),
        (paxos.Accept(BALLOT, 8, 6, 1), "heartbeat ballot 4.2 round 1"),
        (paxos.Rejected(BALLOT, 1_000_000_001), "Rejected 1.1, promised 4.2"),
        (zab.NewEpoch(4, False), "NEWEPOCH 4"),
        (zab.AckEpoch(4, 3, 3, 8), "ACK-E 4 with 3, 3/8"),
        (zab.Truncate(4, 1, 6, 2), "TRUNC behind 2/6 epoch 4"),
        (zab.Diff(4, 1, 6, 3, ENTRIES), "DIFF 7..8 epoch 4"),
        (zab.NewLeader(4, 1, 8, 3, (Entry(9, 4, b""),)), "NEWLEADER 9 epoch 4"),
        (zab.AckLeader(4, 1, 9), "ACK-LD 9 epoch 4"),
        (zab.UpToDate(4, 9), "UPTODATE 9 epoch 4"),
        (zab.Propose(3, 1, 6, 3, 5, ENTRIES), "PROPOSE 7..8 epoch 3 commit 5"),
        (zab.Ping(3, 1, 8, 3, 8), "ping epoch 3 round 1"),
    ],
)
def test_a_message_in_the_words_of_its_protocol(message: Message, label: str) -> None:
    assert message_label(message) == label


def test_generations_have_their_protocols_name() -> None:
    assert [generation_label(name, 7) for name in ("raft", "zab")] == ["term 7", "epoch 7"]
    assert [generation_label("paxos", ballot) for ballot in (BALLOT, 0)] == ["ballot 4.2", "void"]
