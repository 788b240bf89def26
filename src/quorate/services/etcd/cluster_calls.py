"""The calls of the Cluster and Maintenance services by which clients find their way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorate.net.grpc.calls import Call
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import MemberListRequest, MemberListResponse, StatusRequest, StatusResponse
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.members import Members
from quorate.services.etcd.options import ADMIN_METHOD
from quorate.services.etcd.requests import UnaryHandler, decode
from quorate.services.etcd.store import Store
from quorate.services.interface import Group

ETCD_VERSION: Final = "3.4.23"
"""The release of etcd whose calls and words are spoken here; clients choose by it what they may ask for."""


class ClusterCalls:
    """Handlers of unary methods: `handle(call, message)`."""

    def __init__(self, store: Store, group: Group, header: HeaderWriter, members: Members, admin: str) -> None:
        self._store = store
        self._group = group
        self._header = header
        self._members = members
        self._admin = admin

    def methods(self) -> Mapping[str, UnaryHandler]:
        return {
            "/etcdserverpb.Cluster/MemberList": self.member_list,
            "/etcdserverpb.Maintenance/Status": self.status,
            ADMIN_METHOD: lambda call, _: call.reply(self._admin.encode()),
        }

    def member_list(self, call: Call, message: bytes) -> None:
        """As this node knows them, whatever was asked for: etcd 3.4 has no linearizable list."""
        if decode(MemberListRequest, call, message) is not None:
            answer = MemberListResponse(members=self._members.messages())
            # etcd sends no revision with its members.
            call.reply(self._header.write(0) + answer.SerializeToString())

    def status(self, call: Call, message: bytes) -> None:
        if decode(StatusRequest, call, message) is None:
            return
        described = self._group.describe()
        leader = self._group.leadership.leader
        size_bytes = self._store.size_bytes
        answer = StatusResponse(
            version=ETCD_VERSION,
            dbSize=size_bytes,
            dbSizeInUse=size_bytes,
            leader=0 if leader is None else self._members.number(leader),
            raftIndex=described["commit_position"],
            raftAppliedIndex=described["applied_position"],
            raftTerm=self._header.term,
            isLearner=self._group.node_id in described["learners"],
            errors=[EtcdError.NO_LEADER.message] if leader is None else [],
        )
        call.reply(self._header.write(self._store.revision) + answer.SerializeToString())
