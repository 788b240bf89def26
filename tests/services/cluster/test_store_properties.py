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
SETTLE, STEP, TAKE_BACK = "settle", "step", "take back"


def joining(node: int, replaces: int, number: int) -> list[AnyCommand | str]:
    come = Bind(node, folder(node, number), address(node), "")
    return [SETTLE, Add(0, node, address(node), replaces), come, SETTLE, STEP]


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
        st.sampled_from([SETTLE, STEP, TAKE_BACK]).map(one),
        st.just(TAKE_BACK).map(one),
        st.builds(Reached, st.just(0), st.integers(1, 12)).map(one),
        commands.map(one),
        commands.map(one),
    ),
    min_size=6,
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


def spelled_out(store: ClusterStore, move: AnyCommand | str) -> list[AnyCommand]:
    """The commands that a move is, in the present state."""
    if move == SETTLE:
        return [Reached(group, store.version) for group in store.groups]
    if move == STEP:
        step = store.next_step()
        return [step] if step else []
    if move == TAKE_BACK:
        promoted = [node for node in store.voters if store.promotion_is_under_way(node)]
        return [Remove(0, promoted[-1])] if promoted and len(store.voters) > 1 else []
    assert not isinstance(move, str)
    return [move]


def never_trusted_again(before: ClusterStore, now: ClusterStore, command: AnyCommand) -> set[str]:
    """Incarnations that counted before a command and do not after it, as far as they must not come back."""
    if isinstance(command, Bind):
        return {*before.goal().learners.values()} - {*now.goal().learners.values()}
    if isinstance(command, Recover | Refill | Remove | Swap):
        return {*before.goal().voters.values()} - {*now.goal().voters.values()}
    return set()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 4), moves)
def test_any_commands(voters: int, told: list[AnyCommand | str]) -> None:
    story, replica = Story(voters), Story(voters).store
    store = story.store
    for move in told:
        for command in spelled_out(store, move):
            before = ClusterStore.of(store.content())
            outcome = story.tell(command)
            assert not (isinstance(move, str) and outcome.problem), "what is due is not refused"
            assert replica.apply([encode(command)], 0) == [outcome]
            check(store)
            assert before.version <= store.version <= before.version + 1
            if store.goal() != before.goal():
                assert store.version == before.version + 1, "another configuration has another version"
            if isinstance(command, Recover | Form):
                assert not outcome.changed or store.cluster_id != before.cluster_id
            else:
                assert store.groups == before.groups
                assert all(store.reached[group] >= before.reached[group] for group in store.groups)
            assert never_trusted_again(before, store, command) <= store.removed.keys()
            back = before.removed.keys() - store.removed.keys()
            assert all(store.members[before.removed[incarnation]].voter for incarnation in back)
            assert not back or move == TAKE_BACK or isinstance(command, Remove | Refill)
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
        for command in spelled_out(story.store, move):
            story.tell(command)
    story.settle()
    for _ in range(2 * MAX_MEMBERS):
        if story.store.next_step() is None:
            break
        story.step()
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
