"""A store with one session, and a shorter way to talk to it."""

from __future__ import annotations

from quorate.services.zookeeper import commands
from quorate.services.zookeeper.protocol import STAT, Create, Delete, SetACL, SetData, Stat
from quorate.services.zookeeper.store import Store
from quorate.services.zookeeper.tree import Result

PASSWORD = b"0123456789abcdef"
SESSION = 0x1000


class Writer:
    """Applies one command after another to a store, in the name of a session; the time grows by 1 ms each."""

    def __init__(self, store: Store | None = None, session_id: int = SESSION) -> None:
        self.store = store or Store()
        self.session_id = session_id
        result = self.apply(commands.create_session(session_id, 4000, PASSWORD, 1))
        assert result[0] == 0
        self.generation = result[1]

    def apply(self, command: bytes) -> Result:
        (result,) = self.store.apply([command], self.store.time_ms + 1)
        return result

    def write(self, op: int, body: bytes) -> Result:
        return self.apply(commands.write(self.session_id, self.generation, op, body))

    def create(self, path: bytes, data: bytes | None = b"", flags: int = 0) -> Result:
        return self.write(1, Create(path, data, flags=flags).encode())

    def delete(self, path: bytes, version: int = -1) -> Result:
        return self.write(2, Delete(path, version).encode())

    def set_data(self, path: bytes, data: bytes | None, version: int = -1) -> Result:
        return self.write(5, SetData(path, data, version).encode())

    def do(self, item: Create | Delete | SetData | SetACL) -> Result:
        return self.write(item.op, item.encode())

    def stat(self, path: bytes) -> Stat:
        node = self.store.tree.get(path)
        assert node is not None
        return Stat(*STAT.unpack(node.stat))
