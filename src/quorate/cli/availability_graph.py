"""The graph that `quorate availability` asks about: from its options and from a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quorate.availability import AvailabilityError, Graph, Link, check_probability, check_size, complete_links

DEFAULT_NODES = 5
DEFAULT_FAILURE = 0.01
MOST_LISTED = 4
"""More probabilities of single nodes or links are counted in the summary and not listed."""


@dataclass(slots=True)
class Description:
    """A graph, and which of its probabilities were given for one node or link alone."""

    nodes: int
    links: list[Link] | None
    """None where each node is linked to each."""
    node_failure: float = DEFAULT_FAILURE
    link_failure: float = DEFAULT_FAILURE
    own_node_failure: dict[int, float] = field(default_factory=dict)
    own_link_failure: dict[Link, float] = field(default_factory=dict)

    def graph(self) -> Graph:
        """Raises AvailabilityError for what is no graph, or names nodes or links that it has not."""
        check_size(self.nodes)
        for node in self.own_node_failure:
            if not 0 <= node < self.nodes:
                raise AvailabilityError(
                    f"a probability is given for node {node}, but the nodes are 0 to {self.nodes - 1}"
                )
        links = complete_links(self.nodes) if self.links is None else self.links
        for first, second in self.own_link_failure:
            if (first, second) not in links:
                raise AvailabilityError(f"a probability is given for link {first}-{second}, which does not exist")
        failures = {link: self.own_link_failure.get(link, self.link_failure) for link in links}
        return Graph(self.node_failure_with(self.node_failure), failures)

    def node_failure_with(self, failure: float) -> tuple[float, ...]:
        """Of each node: its own, or else this one."""
        return tuple(self.own_node_failure.get(node, failure) for node in range(self.nodes))

    def summary(self) -> str:
        """What is asked, in one line."""
        own = {str(node): failure for node, failure in self.own_node_failure.items()}
        return f"{self._shape()}; {_listed('nodes', f'{self.node_failure:g}', own)}, {self._links_fail()}."

    def title(self) -> str:
        """The same above a plot, where the failure of nodes is an axis."""
        own = {str(node): failure for node, failure in self.own_node_failure.items()}
        return f"{self._shape()}; {_listed('nodes', 'as drawn', own)}, {self._links_fail()}"

    def _shape(self) -> str:
        nodes = f"{self.nodes} node{'s' if self.nodes != 1 else ''}"
        if self.links is None:
            return f"{nodes}, each linked to each"
        return f"{nodes}, {len(self.links)} link{'s' if len(self.links) != 1 else ''}"

    def _links_fail(self) -> str:
        own = {f"{first}-{second}": failure for (first, second), failure in self.own_link_failure.items()}
        return _listed("links", f"{self.link_failure:g}", own)


def _listed(what: str, failure: str, own: dict[str, float]) -> str:
    exceptions = ", ".join(f"{name} with {value:g}" for name, value in own.items())
    if len(own) > MOST_LISTED:
        exceptions = f"{len(own)} with others"
    return f"{what} fail with probability {failure}" + (f" ({exceptions})" if own else "")


def describe_graph(
    nodes: int | None,
    links: str | None,
    file: Path | None,
    node_failures: Sequence[str],
    link_failures: Sequence[str],
) -> Description:
    """From the options of the command; what they say of one node or link holds before what the file says.

    Raises AvailabilityError.
    """
    if file is not None:
        if nodes is not None or links is not None:
            raise AvailabilityError("--graph says which nodes and links there are; leave out --nodes and --links")
        description = _read(file)
    else:
        named = None if links is None else _links(links)
        if nodes is None:
            nodes = DEFAULT_NODES if not named else 1 + max(second for _, second in named)
        description = Description(nodes, named)
    for text in node_failures:
        name, separator, value = text.rpartition("=")
        if separator:
            node = _number(name, "--node-failure")
            description.own_node_failure[node] = _probability(value, f"node {node}")
        else:
            description.node_failure = _probability(value, "every node")
    for text in link_failures:
        name, separator, value = text.rpartition("=")
        if separator:
            link = _link(name, "--link-failure")
            description.own_link_failure[link] = _probability(value, f"link {link[0]}-{link[1]}")
        else:
            description.link_failure = _probability(value, "every link")
    return description


def _links(text: str) -> list[Link]:
    links: list[Link] = []
    for part in text.split(",") if text.strip() else []:
        _add(links, _link(part, "--links"), "--links")
    return links


def _add(links: list[Link], link: Link, where: str) -> None:
    if link in links:
        raise AvailabilityError(f"{where} names link {link[0]}-{link[1]} twice")
    links.append(link)


def _link(text: str, where: str) -> Link:
    first_text, separator, second_text = text.partition("-")
    if not separator:
        raise AvailabilityError(f"{where}: a link is two nodes like 0-1 and not {text.strip()!r:.40}")
    first, second = _number(first_text, where), _number(second_text, where)
    if first == second:
        raise AvailabilityError(f"{where}: link {first}-{second} leads from a node to itself")
    return min(first, second), max(first, second)


def _number(text: str, where: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise AvailabilityError(f"{where}: a node is a number from 0 and not {digits!r:.40}")
    return int(digits)


def _probability(text: str, whose: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise AvailabilityError(f"the probability for {whose} is a number and not {text.strip()!r:.40}") from None
    check_probability(value, whose)
    return value


MOST_BYTES = 1_000_000
"""More than any graph of twelve nodes needs."""


def _read(file: Path) -> Description:
    name = "standard input" if str(file) == "-" else str(file)
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with file.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise AvailabilityError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise AvailabilityError(f"{name} is too large for a graph of at most 12 nodes")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AvailabilityError(f"{name} is not a text in UTF-8") from error
    return _parse(lines, name)


def _parse(lines: Sequence[str], name: str) -> Description:
    nodes: int | None = None
    links: list[Link] = []
    description = Description(0, None)
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        where = f"{name}, line {number}"
        match words:
            case []:
                continue
            case ["nodes", count] if nodes is None:
                nodes = _number(count, where)
            case ["node", node_text, value]:
                node = _number(node_text, where)
                description.own_node_failure[node] = _in_line(where, value, f"node {node}")
            case ["link", link_text, *values] if len(values) <= 1:
                link = _link(link_text, where)
                _add(links, link, where)
                if values:
                    description.own_link_failure[link] = _in_line(where, values[0], f"link {link[0]}-{link[1]}")
            case ["nodes", _]:
                raise AvailabilityError(f"{where} says a second time how many nodes there are")
            case _:
                shown = line.strip()
                raise AvailabilityError(f'{where}: expected "nodes N", "node I P" or "link A-B [P]", not {shown!r:.60}')
    if nodes is None:
        raise AvailabilityError(f'{name} does not say how many nodes there are: it needs a line "nodes N"')
    description.nodes = nodes
    description.links = links or None
    return description


def _in_line(where: str, value: str, whose: str) -> float:
    try:
        return _probability(value, whose)
    except AvailabilityError as error:
        raise AvailabilityError(f"{where}: {error}") from error
