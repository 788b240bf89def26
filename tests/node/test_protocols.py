"""Which protocol each group runs on, as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.protocols import PROTOCOLS
from quorate.node.config import SERVICE_GROUPS
from quorate.node.protocols import (
    CLUSTER_SERVICE,
    PROTOCOL_NAMES,
    check_quorums,
    protocol_text,
    protocols_in,
    protocols_of,
    why_members_stay,
    without_sizes,
)

BOTH = tuple(SERVICE_GROUPS)


def test_every_name_is_that_of_a_protocol() -> None:
    assert set(PROTOCOL_NAMES) == set(PROTOCOLS)


def test_where_nothing_is_said_services_run_on_what_their_clients_know() -> None:
    assert protocols_of(None, BOTH) == {"cluster": "raft", "etcd": "raft", "zookeeper": "zab"}
    assert protocols_of(None, ["etcd"]) == {"cluster": "raft", "etcd": "raft"}


def test_a_name_is_for_every_group_and_a_list_for_those_that_it_names() -> None:
    assert protocols_of("paxos", BOTH) == {"cluster": "paxos", "etcd": "paxos", "zookeeper": "paxos"}
    assert protocols_of(" etcd = paxos ", BOTH) == {"cluster": "raft", "etcd": "paxos", "zookeeper": "zab"}
    assert protocols_of("zookeeper=raft,cluster=zab", BOTH) == {"cluster": "zab", "etcd": "raft", "zookeeper": "raft"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is no protocol: there are raft, paxos, zab"),
        ("Raft", "'Raft' is no protocol"),
        ("etcd=", "'' is no protocol"),
        ("etcd=viewstamped", "'viewstamped' is no protocol"),
        ("etcd=raft,zab", "'zab' must be SERVICE=PROTOCOL, as in etcd=paxos,zookeeper=zab"),
        ("etcd=raft,etcd=zab", "etcd is named twice"),
        ("consul=raft", "'consul' is none of this cluster's groups: there are cluster, etcd, zookeeper"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        protocols_of(text, BOTH)


@pytest.mark.parametrize("name", ["paxos:", "paxos:4", "paxos:0+5", "paxos:4+", "paxos:4+2+1", "paxos:10+2", "zab:2+2"])
def test_sizes_of_quorums_are_two_numbers_behind_paxos(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no protocol: there are .*, and as paxos:4\+2 where 4 nodes are to elect"):
        protocols_of(name, BOTH)


def test_sizes_of_quorums_must_meet_among_the_voters() -> None:
    protocols = protocols_of("etcd=paxos:4+2", BOTH)
    check_quorums(protocols, 5)
    check_quorums(protocols_of(None, BOTH), 5)
    with pytest.raises(ValueError, match="so a new leader could miss what was chosen"):
        check_quorums(protocols, 6)
    with pytest.raises(ValueError, match="phase 1 of 4 nodes is impossible with 3 voters"):
        check_quorums(protocols, 3)


def test_only_sizes_of_quorums_fix_the_members() -> None:
    text = protocol_text(protocols_of("etcd=paxos:4+2,zookeeper=paxos", BOTH))
    assert text == "cluster=raft,etcd=paxos:4+2,zookeeper=paxos"
    assert "4 nodes elect, 2 decide" in str(why_members_stay(text))
    assert "5 nodes elect, 1 decide" in str(why_members_stay("paxos:5+1"))
    assert without_sizes(text) == "cluster=raft,etcd=paxos,zookeeper=paxos"
    assert without_sizes("paxos:5+1") == "paxos"
    assert why_members_stay(without_sizes(text)) is None


def test_groups_that_differed_in_sizes_only_run_on_one_protocol_without_them() -> None:
    """Else no node could join a cluster that was recovered: its settings, read, say `paxos`."""
    text = protocol_text(protocols_of("cluster=paxos:4+2,etcd=paxos,zookeeper=paxos:5+1", BOTH))
    assert without_sizes(text) == protocol_text(protocols_of(without_sizes(text), BOTH)) == "paxos"


def test_a_service_that_the_cluster_does_not_serve_runs_on_nothing() -> None:
    with pytest.raises(ValueError, match="there are cluster, etcd"):
        protocols_of("zookeeper=zab", ["etcd"])


CHOICES = st.sets(st.sampled_from(BOTH), min_size=1).flatmap(
    lambda services: st.fixed_dictionaries(
        {service: st.sampled_from(PROTOCOL_NAMES) for service in [*sorted(services), CLUSTER_SERVICE]}
    )
)


@given(CHOICES, CHOICES)
def test_equal_choices_and_only_they_have_equal_texts(one: dict[str, str], other: dict[str, str]) -> None:
    text = protocol_text(one)
    assert protocols_of(text, one) == dict(sorted(one.items()))
    assert protocols_in(text, one) == one
    if one.keys() == other.keys():
        assert (text == protocol_text(other)) == (one == other)


def test_a_text_that_leaves_a_service_out_does_not_say_what_it_runs_on() -> None:
    assert protocols_in("cluster=raft,zookeeper=zab", BOTH) == {"zookeeper": "zab"}
