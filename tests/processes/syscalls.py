"""Reading what strace wrote about a node: which call, on which file or socket, with which bytes, in which order.

With several threads strace splits a call that another thread's call interrupts into an
`<unfinished ...>` and a `<... resumed>` line.  The position of those lines is what
happened: a call was entered at its first line and had returned at its last one, because
strace stops a thread at both moments and writes before it lets the thread go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TRACED = "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,sendmmsg,fdatasync,fsync"

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((\d+)<((?:\\x[0-9a-f]{2})+|[^\\>][^\]>]*\[.*?\])>(.*)\) += (-?\d+|\?).*", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_OFFSET = re.compile(r", (\d+)$")
_UNFINISHED = " <unfinished ...>"


def strace(output: str, *, slow_syncs_us: int = 0) -> list[str]:
    """The command that precedes a node's to trace it.  `slow_syncs_us` makes every fdatasync take that long."""
    command = ["strace", "-f", "-yy", "-xx", "-s", "10000000", "-e", f"trace={TRACED}", "-e", "signal=none"]
    if slow_syncs_us:
        command += ["-e", f"inject=fdatasync:delay_exit={slow_syncs_us}"]
    # libuv would otherwise set its event polling up through io_uring, where strace cannot follow.
    return [*command, "-E", "UV_USE_IO_URING=0", "-o", output]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call on one descriptor.  `entered` and `returned` are line numbers of the trace."""

    name: str
    target: str
    """Path of a file, or `TCP:[local->remote]`."""
    data: bytes
    offset: int | None
    result: int | None
    """None where the call never returned."""
    entered: int
    returned: int


def parse(lines: Iterable[str]) -> Iterator[Call]:
    """All calls on files and sockets, in the order in which they returned.  Raises ValueError."""
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None:
            raise ValueError(f"line {number} is none of strace's: {line[:200]!r}")
        thread, text = match.groups()
        entered = number
        if text.endswith(_UNFINISHED):
            unfinished[thread] = number, text.removesuffix(_UNFINISHED)
            continue
        resumed = _RESUMED.fullmatch(text)
        if resumed is not None:
            if thread not in unfinished:
                continue  # The thread was met inside of a call.
            entered, begun = unfinished.pop(thread)
            text = begun + resumed[2]
        call = _CALL.fullmatch(text)
        if call is not None:
            yield _call(call, entered, number)
    for entered, begun in unfinished.values():
        call = _CALL.fullmatch(f"{begun}) = ?")
        if call is not None:
            yield _call(call, entered, 1 << 62)


def _call(match: re.Match[str], entered: int, returned: int) -> Call:
    name, _, target, arguments, result = match.groups()
    texts = _TEXT.findall(arguments)
    if any(cut for _, cut in texts):
        raise ValueError(f"strace cut the data of a {name} short")
    data = b"".join(_unhex(text) for text, _ in texts)
    offset = _OFFSET.search(arguments) if name == "pwrite64" else None
    return Call(
        name,
        _unhex(target).decode() if target.startswith("\\") else target,
        data,
        int(offset[1]) if offset is not None else None,
        int(result) if result != "?" else None,
        entered,
        returned,
    )


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
