"""Which protocol each group runs on, as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.protocols import PROTOCOLS
from quorate.node.config import SERVICE_GROUPS
from quorate.node.protocols import CLUSTER_SERVICE, PROTOCOL_NAMES, protocol_text, protocols_in, protocols_of

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
