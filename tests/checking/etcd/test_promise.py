"""Each promise of etcd's API: a history that keeps it passes, and the same history with one thing spoilt does not."""

from __future__ import annotations

import pytest

from quorate.checking.etcd.records import Use, Watch
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.errors import EtcdError
from tests.checking.etcd.log import Log


def put_op(request: pb.PutRequest) -> pb.RequestOp:
    return pb.RequestOp(request_put=request)


# --- the order of writes -------------------------------------------------------------------------


def test_two_writes_have_not_one_revision() -> None:
    log = Log()
    log.put(b"k")
    second = log.put(b"k")
    assert log.findings() == []
    assert second.response is not None
    second.response.header.revision -= 1
    assert "writes" in log.checks()


def test_a_write_that_nobody_was_told_of_is_a_hole() -> None:
    log = Log()
    log.put(b"k")
    log.lost(log.putting(b"k"), done=True)
    log.put(b"k")
    assert log.findings() == []
    log.everything.deliveries.pop(2)
    assert "writes" in log.checks()


def test_a_write_that_failed_for_sure_was_not_done() -> None:
    log = Log()
    call = log.lost(log.putting(b"k", b"v"), done=True)
    assert log.findings() == []
    call.error, call.returned_at = EtcdError.NO_LEADER, log.at + 0.5
    assert log.checks() == {"writes"}


def test_a_write_of_unknown_outcome_is_done_once_at_most() -> None:
    log = Log()
    call = log.lost(log.putting(b"k", b"v"), done=True)
    assert log.findings() == []
    log.lost(call.request, done=True)
    log.history.calls.pop()
    assert log.checks() == {"writes"}


def test_a_value_that_is_kept_was_put_by_another() -> None:
    log = Log()
    log.lost(log.putting(b"k", b"v"), done=True)
    keeper = log.lost(pb.PutRequest(key=b"k", lease=7, ignore_value=True), done=True)
    assert log.findings() == []
    log.history.calls.remove(keeper)
    assert log.checks() == {"writes"}


def test_as_many_deletions_as_there_were_deleters() -> None:
    log = Log()
    wide, narrow = pb.DeleteRangeRequest(key=b"k", range_end=b"l"), pb.DeleteRangeRequest(key=b"k")
    log.put(b"k")
    log.put(b"kk")
    log.lost(narrow, done=True)
    log.lost(wide, done=True)
    log.put(b"k")
    log.lost(wide, done=True)
    assert log.findings() == []
    log.history.calls.pop()
    assert log.checks() == {"writes"}


def test_nothing_happens_before_it_is_asked_for() -> None:
    log = Log()
    log.put(b"a")
    call = log.lost(log.putting(b"k", b"v"), done=True)
    log.put(b"a")
    assert log.findings() == []
    call.invoked_at = log.at + 1
    assert log.checks() == {"writes"}


@pytest.mark.parametrize("field", ["create_revision", "mod_revision", "version", "value"])
def test_the_previous_version_is_the_previous_version(field: str) -> None:
    log = Log()
    log.put(b"k", b"old")
    response = log.put(b"k", b"new", prev_kv=True).response
    assert log.findings() == []
    assert isinstance(response, pb.PutResponse)
    setattr(response.prev_kv, field, b"other" if field == "value" else 9)
    assert log.checks() == {"writes"}


def test_a_transaction_takes_the_right_branch_and_reads_what_it_wrote() -> None:
    log = Log()
    log.put(b"k", b"old")
    request = pb.TxnRequest(
        compare=[pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"old")],
        success=[put_op(log.putting(b"k", b"new")), pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))],
    )
    done, refused = log.write(request).response, log.write(request).response
    assert isinstance(done, pb.TxnResponse)
    assert isinstance(refused, pb.TxnResponse)
    assert (done.succeeded, refused.succeeded) == (True, False)
    assert log.findings() == []
    done.responses[1].response_range.kvs[0].value = b"old"
    assert log.checks() == {"writes"}
    done.responses[1].response_range.kvs[0].value = b"new"
    refused.succeeded = True
    assert log.checks() == {"writes"}


def test_a_deletion_that_deleted_takes_a_revision() -> None:
    log = Log()
    log.put(b"k")
    deleted = log.write(pb.DeleteRangeRequest(key=b"k"))
    nothing = log.write(pb.DeleteRangeRequest(key=b"k"))
    assert (deleted.revision, nothing.revision) == (3, 3)
    log.put(b"k")
    assert log.findings() == []
    assert deleted.response is not None
    deleted.response.header.revision = 2
    assert "writes" in log.checks()


def test_a_deletion_finds_what_is_there() -> None:
    log = Log()
    nothing = log.write(pb.DeleteRangeRequest(key=b"k"))
    log.put(b"k")
    later = log.write(pb.DeleteRangeRequest(key=b"x"))
    assert log.findings() == []
    later.request = pb.DeleteRangeRequest(key=b"k")
    assert log.checks() == {"writes"}
    assert nothing.revision == 1


# --- reads ---------------------------------------------------------------------------------------


def test_a_read_is_the_state_as_of_its_revision() -> None:
    log = Log()
    log.put(b"a")
    log.put(b"b")
    response = log.read(b"a", b"c").response
    assert log.findings() == []
    assert isinstance(response, pb.RangeResponse)
    response.count = 1
    assert log.checks() == {"reads"}
    response.count = 2
    response.kvs.pop()
    assert log.checks() == {"reads"}


def test_a_read_at_an_old_revision_sees_no_later_version() -> None:
    log = Log()
    log.put(b"k")
    log.put(b"k")
    old, new = log.read(b"k", revision=2), log.read(b"k")
    assert log.findings() == []
    assert isinstance(old.response, pb.RangeResponse)
    assert isinstance(new.response, pb.RangeResponse)
    old.response.kvs[0].CopyFrom(new.response.kvs[0])
    assert log.checks() == {"reads"}


def test_a_read_is_not_older_than_what_was_shown_before_unless_it_may_be() -> None:
    log = Log()
    log.put(b"k")
    old = log.read(b"k")
    call = log.put(b"k")
    old.invoked_at, old.returned_at = log.at + 1, log.at + 1.5
    old.connection = 2
    assert log.checks() == {"linearizable reads"}
    assert isinstance(old.request, pb.RangeRequest)
    old.request.serializable = True
    assert log.findings() == []
    # But a member that has shown the newer state does not go back.
    old.connection = call.connection
    assert log.checks() == {"monotonic reads"}


def test_a_write_comes_behind_what_was_shown_before_it_was_sent() -> None:
    log = Log()
    first, second = log.put(b"k"), log.put(b"k")
    assert log.findings() == []
    first.invoked_at, first.returned_at = log.at + 1, log.at + 1.5
    assert "linearizable writes" in log.checks()
    assert second.revision == 3


def test_a_missing_key_is_a_reason_only_while_it_is_missing() -> None:
    log = Log()
    request = pb.PutRequest(key=b"k", ignore_value=True)
    log.refused(request, EtcdError.KEY_NOT_FOUND)
    log.put(b"k")
    assert log.findings() == []
    log.refused(request, EtcdError.KEY_NOT_FOUND)
    assert log.checks() == {"answers"}


# --- compaction ----------------------------------------------------------------------------------


def test_only_what_was_compacted_is_refused_as_compacted() -> None:
    log = Log()
    log.put(b"k")
    log.put(b"k")
    old = pb.RangeRequest(key=b"k", revision=2)
    log.read(b"k", revision=2)
    compaction = log.compact(3)
    log.refused(old, EtcdError.COMPACTED)
    log.read(b"k", revision=3)
    assert log.findings() == []
    compaction.request = pb.CompactionRequest(revision=2)
    assert log.checks() == {"compaction"}


def test_what_was_compacted_is_refused() -> None:
    log = Log()
    log.put(b"k")
    log.put(b"k")
    log.compact(3)
    log.read(b"k", revision=2, serializable=True)
    assert log.findings() == []
    log.read(b"k", revision=2)
    assert log.checks() == {"compaction"}


def test_the_future_is_not_compacted_and_the_past_is_not_the_future() -> None:
    log = Log()
    log.put(b"k")
    log.refused(pb.RangeRequest(key=b"k", revision=3), EtcdError.FUTURE_REVISION)
    assert log.findings() == []
    log.put(b"k")
    log.refused(pb.RangeRequest(key=b"k", revision=3), EtcdError.FUTURE_REVISION)
    assert log.checks() == {"answers"}


def test_a_compaction_of_the_future_is_not_done() -> None:
    log = Log()
    log.put(b"k")
    log.compact(2)
    assert log.findings() == []
    log.compact(3)
    assert log.checks() == {"compaction"}


# --- watches -------------------------------------------------------------------------------------


def watched(log: Log) -> Watch:
    """A watch of k from now on, told of three of its events."""
    log.put(b"k")
    watch = log.watch(b"k", prev_kv=True)
    log.put(b"k")
    log.tell(watch)
    log.put(b"other")
    log.write(pb.DeleteRangeRequest(key=b"k"))
    log.tell(watch)
    log.put(b"k")
    log.tell(watch)
    return watch


def test_a_watch_is_told_of_every_event_once_and_in_order() -> None:
    log = Log()
    watch = watched(log)
    assert log.findings() == []
    created, first, second, third = watch.deliveries
    for wrong in (
        [created, first, third],
        [created, second, third],
        [created, first, first, second],
        [created, second, first],
    ):
        watch.deliveries[:] = wrong
        assert log.checks() == {"watches"}
    # What it was not told in the end it may yet be told.
    watch.deliveries[:] = [created, first, second]
    assert log.findings() == []


def test_a_watch_goes_on_where_it_was_after_a_connection_was_lost() -> None:
    log = Log()
    watch = watched(log)
    again = log.deliver(watch, pb.WatchResponse(header=log.header(), created=True))
    log.put(b"k")
    log.tell(watch)
    assert log.findings() == []
    watch.deliveries.remove(again)
    watch.deliveries.insert(1, again)
    assert log.findings() == []
    watch.deliveries.pop(2)
    assert log.checks() == {"watches"}


def test_what_was_before_is_as_of_the_revision_before() -> None:
    log = Log()
    watch = watched(log)
    first = watch.deliveries[1].response.events[0]
    before = pb.KeyValue()
    before.CopyFrom(first.prev_kv)
    first.prev_kv.value = b"other"
    assert log.checks() == {"watches"}
    first.ClearField("prev_kv")
    assert log.checks() == {"watches"}
    # Unless it may have been compacted by then.
    log.compact(3)
    watch.deliveries[1].at = watch.deliveries[2].at = watch.deliveries[3].at = log.at + 1
    assert log.findings() == []
    first.prev_kv.CopyFrom(before)
    assert log.findings() == []
    watch.request.prev_kv = False
    assert log.checks() == {"watches"}


def test_the_events_of_one_revision_come_together() -> None:
    log = Log()
    watch = log.watch(b"a", b"z")
    log.write(pb.TxnRequest(success=[put_op(log.putting(b"b")), put_op(log.putting(b"c"))]))
    whole = log.tell(watch).response
    assert log.findings() == []
    rest = pb.WatchResponse(header=whole.header, events=[whole.events.pop()])
    log.deliver(watch, rest)
    assert log.checks() == {"watches"}


def test_filters_and_ranges() -> None:
    log = Log()
    watch = log.watch(b"a", b"c", filters=[pb.WatchCreateRequest.NODELETE])
    log.put(b"a")
    log.tell(watch)
    log.write(pb.DeleteRangeRequest(key=b"a"))
    log.put(b"c")
    log.put(b"b")
    log.tell(watch)
    assert log.findings() == []
    log.deliver(watch, pb.WatchResponse(header=log.header(), events=[log.past.changes(3)[0]]))
    assert log.checks() == {"watches"}


def test_progress_promises_that_nothing_earlier_comes() -> None:
    log = Log()
    watch = log.watch(b"k")
    log.put(b"other")
    log.progress(watch)
    log.put(b"k")
    told = log.tell(watch)
    log.progress(watch)
    assert log.findings() == []
    watch.deliveries.remove(told)
    assert log.checks() == {"watches"}


def test_a_watch_ends_as_compacted_only_where_it_was_overtaken() -> None:
    log = Log()
    for _ in range(4):
        log.put(b"k")
    log.compact(4)
    watch = log.watch(b"k", start=2)
    end = log.deliver(watch, pb.WatchResponse(header=log.header(), canceled=True, compact_revision=4))
    assert log.findings() == []
    end.response.compact_revision = 3
    assert log.checks() == {"watches"}
    end.response.compact_revision = 4
    # At the compacted revision itself deletions may be missing, so it may be overtaken by that.
    watch.request.start_revision = 4
    assert log.findings() == []
    watch.request.start_revision = 5
    assert log.checks() == {"watches"}


def test_a_watch_that_begins_at_a_compacted_revision_need_not_be_told_of_deletions_at_it() -> None:
    log = Log()
    log.put(b"k")
    log.write(pb.DeleteRangeRequest(key=b"k"))
    compaction = log.compact(3)
    log.at += 1
    watch = log.watch(b"k", start=3)
    log.put(b"k")
    log.tell(watch)
    assert log.findings() == []
    compaction.request = pb.CompactionRequest(revision=2)
    assert log.checks() == {"watches"}


def test_a_watch_that_nobody_cancelled_goes_on() -> None:
    log = Log()
    watch = log.watch(b"k")
    log.deliver(watch, pb.WatchResponse(header=log.header(), canceled=True))
    assert log.checks() == {"watches"}
    watch.cancelled = True
    assert log.findings() == []


def test_a_revision_that_was_shown_to_a_watch_is_there_for_all() -> None:
    log = Log()
    log.put(b"k")
    old = log.read(b"k")
    log.lost(log.putting(b"k"), done=True)
    old.invoked_at, old.returned_at = log.at + 1, log.at + 1.5
    assert log.checks() == {"linearizable reads"}


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_takes_all_of_its_keys_and_no_others() -> None:
    log = Log()
    log.grant(7, 2)
    for key in (b"a", b"b", b"c"):
        log.put(key, lease=7)
    log.put(b"b")
    log.expire(7)
    log.put(b"d")
    assert log.findings() == []
    told = next(one for one in log.everything.deliveries if len(one.response.events) == 2)
    gone = told.response.events.pop()
    assert "leases" in log.checks()
    told.response.events.append(gone)
    told.response.events.append(pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=b"b", mod_revision=6)))
    assert "leases" in log.checks()


def test_a_lease_that_was_vouched_for_lasts() -> None:
    log = Log()
    log.grant(7, 3)
    log.put(b"k", lease=7)
    keep_alive = log.keep_alive(7, 3)
    log.at += 2
    log.expire(7)
    assert log.findings() == []
    keep_alive.sent_at += 1
    keep_alive.returned_at += 1
    assert log.checks() == {"leases"}
    # Somebody may have revoked it.
    log.lost(pb.LeaseRevokeRequest(ID=7), done=False).invoked_at = keep_alive.returned_at
    assert log.findings() == []


def test_a_lease_that_is_over_is_not_kept_alive() -> None:
    log = Log()
    log.grant(7, 2)
    log.put(b"k", lease=7)
    log.at += 3
    log.expire(7)
    log.keep_alive(7, 0)
    assert log.findings() == []
    log.keep_alive(7, 2)
    assert log.checks() == {"leases"}


def test_a_live_lease_is_there() -> None:
    log = Log()
    log.grant(7, 60)
    log.put(b"k", lease=7)
    log.refused(log.putting(b"k", lease=8), EtcdError.LEASE_NOT_FOUND)
    assert log.findings() == []
    keep_alive = log.keep_alive(7, 0)
    assert log.checks() == {"leases"}
    log.history.keep_alives.remove(keep_alive)
    call = log.refused(log.putting(b"k", lease=7), EtcdError.LEASE_NOT_FOUND)
    assert log.checks() == {"leases"}
    call.invoked_at = call.returned_at = 1.0
    assert log.findings() == []


def test_a_revoked_lease_leaves_nothing() -> None:
    log = Log()
    log.grant(7, 60)
    log.put(b"k", lease=7)
    revoke = log.revoke(7)
    log.refused(log.putting(b"k", lease=7), EtcdError.LEASE_NOT_FOUND)
    assert log.findings() == []
    # The revision of a revocation that took keys is its own, also where no watch tells of it.
    told = log.everything.deliveries.pop()
    assert log.findings() == []
    log.everything.deliveries.append(told)
    log.put(b"x", lease=7)
    assert log.checks() == {"leases"}
    assert revoke.response is not None
    revoke.response.header.revision = 2
    assert log.checks() == {"leases"}


def test_what_is_told_of_a_lease() -> None:
    log = Log()
    log.grant(7, 60)
    log.put(b"k", lease=7)
    request = pb.LeaseTimeToLiveRequest(ID=7, keys=True)
    answer = pb.LeaseTimeToLiveResponse(ID=7, TTL=59, grantedTTL=60, keys=[b"k"])
    log._answer(log._begin(request), answer)
    leases = pb.LeaseLeasesResponse(leases=[pb.LeaseStatus(ID=7)])
    log._answer(log._begin(pb.LeaseLeasesRequest()), leases)
    assert log.findings() == []
    answer.keys.append(b"x")
    assert log.checks() == {"leases"}
    answer.keys.pop()
    answer.TTL = -1
    assert log.checks() == {"leases"}
    answer.TTL = 61
    assert log.checks() == {"leases"}
    answer.TTL = 1
    leases.leases.append(pb.LeaseStatus(ID=9))
    assert log.checks() == {"leases"}


# --- locks ---------------------------------------------------------------------------------------


def fenced(log: Log, claim: bytes, token: int) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[pb.Compare(key=claim, target=pb.Compare.CREATE, create_revision=token)],
        success=[put_op(log.putting(b"guarded"))],
    )


def test_the_oldest_claim_holds() -> None:
    log = Log()
    log.put(b"lock/a")
    log.put(b"lock/b")
    hold = log.hold(b"lock/a")
    write = log.write(fenced(log, b"lock/a", hold.token))
    log.lost(fenced(log, b"lock/a", hold.token), done=True)
    log.write(pb.DeleteRangeRequest(key=b"lock/a"))
    other = log.hold(b"lock/b", "b")
    log.write(fenced(log, b"lock/b", other.token), client="b")
    refused = log.write(fenced(log, b"lock/a", hold.token))
    assert not log.past.attached(1, log.revision)
    assert refused.revision == log.revision
    assert log.findings() == []
    other.held_revision = write.revision
    assert log.checks() == {"locks"}


def test_a_write_of_a_claim_that_is_not_the_oldest_is_found() -> None:
    log = Log()
    log.put(b"lock/a")
    log.put(b"lock/b")
    log.hold(b"lock/a")
    hold = log.hold(b"lock/b", "b")
    log.write(fenced(log, b"lock/b", hold.token), client="b")
    assert [finding.check for finding in log.findings()] == ["locks", "locks"]


def test_what_the_lock_guards_takes_tokens_in_order() -> None:
    log = Log()
    log.put(b"lock/a")
    first = log.hold(b"lock/a")
    log.write(pb.DeleteRangeRequest(key=b"lock/a"))
    log.put(b"lock/b")
    second = log.hold(b"lock/b", "b")
    use = Use(b"lock/", "b", second.token, 1.0, accepted=True)
    late = Use(b"lock/", "a", first.token, 2.0, accepted=False)
    log.history.uses += [use, late]
    assert log.findings() == []
    late.accepted = True
    assert log.checks() == {"locks"}
    late.accepted = False
    use.client = "a"
    assert log.checks() == {"locks"}
