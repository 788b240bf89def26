"""What holds whatever the cluster group is told, in whatever order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.services.cluster.commands import (
    NOBODY,
    Add,
    AnyCommand,
    Bind,
    Form,
    Member,
    Moved,
    Promote,
    Reached,
    Recover,
    Refill,
    Remove,
    Swap,
    decode,
    encode,
)
from quorate.services.cluster.store import MAX_MEMBERS, ClusterStore
from tests.services.cluster.stories import Story, address, folder

nodes = st.integers(1, 5)
folders = st.builds(folder, nodes, st.integers(1, 3))
addresses = st.one_of(nodes.map(address), st.sampled_from(["Name:1", "name:01", "nowhere", ""]))
expected = st.sampled_from([0, 0, 0, 1, 2])
members = st.builds(
    Member,
    nodes,
    addresses,
    st.just(""),
    st.one_of(folders, st.just("")),
    st.booleans(),
    st.booleans(),
    st.one_of(st.just(NOBODY), nodes),
)
groups = st.lists(st.integers(0, 2), max_size=3)
of_a_node = (nodes, folders, addresses, st.just("admin:1"))


def at_home(command: type[Bind] | type[Refill] | type[Moved]) -> st.SearchStrategy[AnyCommand]:
    """A node that comes with one of its own folders and its own address."""
    return st.tuples(nodes, st.integers(1, 3)).map(lambda pair: command(pair[0], folder(*pair), address(pair[0]), ""))


commands: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(Add, expected, nodes, addresses, st.one_of(st.just(NOBODY), nodes)),
    nodes.flatmap(lambda node: st.builds(Add, st.just(0), st.just(node), st.just(address(node)), nodes)),
    st.builds(Promote, expected, nodes),
    st.builds(Remove, expected, nodes),
    st.builds(Swap, expected, nodes),
    st.builds(Bind, *of_a_node),
    at_home(Bind),
    st.builds(Refill, *of_a_node),
    at_home(Refill),
    at_home(Moved),
    st.builds(Moved, *of_a_node),
    st.builds(Reached, st.integers(0, 3), st.integers(0, 12)),
    st.builds(Form, st.sampled_from(["c", "d", ""]), st.lists(members, max_size=3), groups),
    st.builds(Recover, st.sampled_from(["c", "e", "f", ""]), members, groups),
)
SETTLE, STEP = "settle", "step"


def joining(node: int, replaces: int, number: int) -> list[AnyCommand | str]:
    come = Bind(node, folder(node, number), address(node), "")
    return [SETTLE, Add(0, node, address(node), replaces), come, SETTLE]


def one(move: AnyCommand | str) -> list[AnyCommand | str]:
    return [move]


# Commands drawn blindly are nearly all refused, so some come as people and nodes would send them.
moves: st.SearchStrategy[list[AnyCommand | str]] = st.lists(
    st.one_of(
        st.builds(joining, nodes, st.one_of(st.just(NOBODY), nodes), st.integers(1, 2)),
        st.builds(joining, nodes, nodes, st.integers(1, 2)),
        at_home(Refill).map(one),
        st.builds(Remove, st.just(0), nodes).map(one),
        st.builds(Promote, st.just(0), nodes).map(one),
        st.sampled_from([SETTLE, STEP, STEP]).map(one),
        st.builds(Reached, st.just(0), st.integers(1, 12)).map(one),
        commands.map(one),
        commands.map(one),
    ),
    max_size=25,
).map(lambda parts: [move for part in parts for move in part])


def check(store: ClusterStore) -> None:
    """What is true of every state."""
    everybody = [*store.members.values(), *store.leaving.values()]
    if store.version:
        assert store.voters and store.groups
    assert not store.members.keys() & store.leaving.keys()
    assert len(store.members) <= 2 * MAX_MEMBERS
    assert all(member.incarnation for member in everybody if member.voter)
    incarnations = [member.incarnation for member in everybody if member.incarnation]
    assert len(set(incarnations)) == len(incarnations), "one folder, one member"
    assert len({member.address.lower() for member in everybody}) == len(everybody)
    assert not any(member.incarnation in store.removed for member in store.members.values())
    assert all(member.incarnation in store.removed for member in store.leaving.values())
    assert all(reached <= store.version for reached in store.reached.values())
    assert store.under_way() or not store.leaving
    assert set(store.goal().voters) == set(store.voters)
    replaced = [member.replaces for member in store.members.values() if member.replaces != NOBODY]
    assert len(set(replaced)) == len(replaced)
    for member in store.members.values():
        if member.replaces != NOBODY:
            assert member.replaces in (store.leaving if member.voter else store.members)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 4), moves)
def test_any_commands(voters: int, told: list[AnyCommand | str]) -> None:
    story, replica = Story(voters), Story(voters).store
    store = story.store
    cluster_ids = [store.cluster_id]
    for move in told:
        before = store.version
        group_versions = dict(store.reached)
        if isinstance(move, str):
            step = store.next_step()
            batch: list[AnyCommand] = [Reached(group, store.version) for group in store.groups]
            if move == STEP:
                batch = [step] if step else []
        else:
            batch = [move]
        for command in batch:
            outcome = story.tell(command)
            assert not (isinstance(move, str) and outcome.problem), "what it asks for itself it does not refuse"
            assert replica.apply([encode(command)], 0) == [outcome]
            if not isinstance(command, Recover):
                assert all(store.reached[group] >= version for group, version in group_versions.items())
            if outcome.changed and isinstance(command, Form | Recover):
                assert store.cluster_id not in cluster_ids
                cluster_ids = [*cluster_ids[-1:], store.cluster_id]
        assert before <= store.version <= before + 1
        check(store)
        assert store.content() == replica.content()
        # The replica goes on from a snapshot, so whatever that forgets shows.
        slices = replica.snapshot()
        loader = (replica := ClusterStore()).restore()
        for slice_ in slices:
            loader.feed(slice_)
        loader.finish()
        slices.close()
        assert replica.content() == store.content()
        assert replica.goal() == store.goal() and replica.next_step() == store.next_step()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), moves)
def test_it_always_comes_to_rest(voters: int, told: list[AnyCommand | str]) -> None:
    """Once groups follow, what the leader submits by itself ends, and everybody who was refilled votes again."""
    story = Story(voters)
    for move in told:
        if isinstance(move, str):
            for group in story.store.groups:
                story.do(Reached(group, story.store.version))
        else:
            story.tell(move)
    for _ in range(2 * MAX_MEMBERS):
        for group in story.store.groups:
            story.do(Reached(group, story.store.version))
        step = story.store.next_step()
        if step is None:
            break
        story.do(step)
    assert story.store.next_step() is None and not story.store.leaving
    for member in story.store.members.values():
        assert member.voter or not member.incarnation or not (member.refilling or member.replaces != NOBODY)


@given(commands)
def test_commands_come_back_from_their_bytes(command: AnyCommand) -> None:
    assert decode(encode(command)) == command


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """They are a command or an error result, and never stop the node."""
    story = Story(3)
    before = story.store.content()
    (outcome,) = story.store.apply([data], 0)
    assert outcome.changed is (story.store.content() != before)


@given(commands, st.data())
def test_damaged_commands(command: AnyCommand, data: st.DataObject) -> None:
    damaged = bytearray(encode(command))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    store = Story(3).store
    store.apply([bytes(damaged)], 0)
    assert store.voters and store.groups
    assert ClusterStore.of(store.content()).content() == store.content()
