"""Two processes at once on one PostgreSQL: what each reads before it writes may be changed by the other in between.

On SQLite a writer holds the store from its first statement on, so none of this can happen there.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from connections.rows import notify, write_log
from core.errors import CandlelakeError, InputError, StoreConflictError
from core.interval import Interval
from feed.notices import _claim
from storage.access import make_code, note_failure, use_code
from storage.audit import audit_head_of, list_audit, record, verify_audit
from storage.ledger import Gap, book_gaps
from storage.metadata.tables import connections
from storage.metadata.tables_people import audit_head, audit_log, login_throttles
from storage.people import UserRow, add_user
from storage.series import list_series
from storage.ticks.losses import ensure_tick_series
from tests.storage.conftest import add_connection

RIVALS = 6
pytestmark = pytest.mark.parametrize("lake", ["sqlite", "postgres"], indirect=True)


def _together(work):
    """Run `work(number)` in so many threads that all begin at once; return what each gave or raised."""
    start = threading.Barrier(RIVALS)

    def one(number):
        start.wait()
        try:
            return work(number)
        except CandlelakeError as error:
            return error

    with ThreadPoolExecutor(RIVALS) as pool:
        return list(pool.map(one, range(RIVALS)))


def test_deeds_at_once_are_one_chain(lake):
    """The audit log's chain stays whole when several processes write it: a fork would look like a forgery."""
    def deeds(number):
        for turn in range(10):
            with lake.metadata.write() as tx:
                record(tx, f"user{number}", "cli", "deed", str(turn), "done", 0)

    _together(deeds)
    with lake.metadata.read() as tx:
        assert len(list_audit(tx, 1000)) == RIVALS * 10
        assert verify_audit(tx) is None


def test_a_deed_that_was_rolled_back_leaves_no_hole(lake):
    """A transaction that fails after its deed was written down leaves a chain that is whole."""
    for turn in range(4):
        with suppress(KeyError), lake.metadata.write() as tx:
            record(tx, "ann", "cli", "deed", str(turn), "done", 0)
            if turn % 2:
                raise KeyError
    with lake.metadata.read() as tx:
        assert [row.subject for row in list_audit(tx)] == ["2", "0"]
        assert verify_audit(tx) is None


def test_rows_cut_off_at_the_end_are_missed(lake):
    """Whoever removes the newest deeds is found, at once and after further deeds too; a head that was noted elsewhere tells of a log that was made anew."""
    def deed(turn):
        with lake.metadata.write() as tx:
            record(tx, "ann", "cli", "deed", str(turn), "done", 0)

    for turn in range(4):
        deed(turn)
    with lake.metadata.write() as tx:
        noted = audit_head_of(tx)
        assert (verify_audit(tx), verify_audit(tx, noted), noted.split(":")[0]) == (None, None, "4")
        tx.execute(audit_log.delete().where(audit_log.c.id > 2))
        assert verify_audit(tx) == 3
    deed("later")
    with lake.metadata.write() as tx:
        assert [row.id for row in list_audit(tx)] == [5, 2, 1]
        assert verify_audit(tx) == 5
        tx.execute(audit_log.delete())
        assert verify_audit(tx) == 1
        tx.execute(audit_head.delete())
        assert verify_audit(tx) is None  # all of it is gone, as in a store that is new
        assert verify_audit(tx, noted) == 4
    for turn in range(6):
        deed(f"forged {turn}")
    with lake.metadata.read() as tx:
        assert verify_audit(tx) is None
        assert verify_audit(tx, noted) == 4


def test_a_head_that_was_removed_is_not_made_anew(lake):
    """Without its head the log goes on, and the next deed does not follow from the one before it: that stays to be seen."""
    for turn in range(4):
        with lake.metadata.write() as tx:
            record(tx, "ann", "cli", "deed", str(turn), "done", 0)
            if turn == 1:
                tx.execute(audit_head.delete())
                assert verify_audit(tx) == 1
    with lake.metadata.read() as tx:
        assert verify_audit(tx) == 3


def test_a_head_that_is_none_is_refused(lake):
    """What was noted is a row's number and its digest; anything else is said to be none."""
    for text in ("", "7", "x:" + "0" * 64, "7:" + "g" * 64, "-1:" + "0" * 64):
        with lake.metadata.read() as tx, pytest.raises(InputError, match="audit head"):
            verify_audit(tx, text)


def test_what_was_deleted_meanwhile_is_told_alike_by_both_databases(lake, add_series):
    """What a run read in one transaction and another process deleted before the next: an import, a gap and a log line are refused in a line that says so."""
    series_id = add_series()
    with lake.metadata.read() as tx:
        (row,) = list_series(tx)
    with lake.metadata.write() as tx:
        tx.execute(connections.delete())

    def log_line(tx):
        write_log(tx, (row.connection_id, "kraken"), "fetch", "success", "done", 0)

    def gap(tx):
        book_gaps(tx, [Gap(series_id, Interval(0, 60_000_000), "unknown")], 0)

    for work in (log_line, gap):
        with pytest.raises(StoreConflictError, match="was deleted"), lake.metadata.write() as tx:
            work(tx)


def test_a_one_time_code_counts_once(lake):
    """Of several who use one code at the same moment one gets in."""
    for _ in range(5):
        with lake.metadata.write() as tx:
            code = make_code(tx, "setup", None, 0)

        def use(_number, code=code):
            with lake.metadata.write() as tx:
                return use_code(tx, "setup", code.reveal(), 1)

        assert sum(found == 0 for found in _together(use)) == 1


def test_every_failed_login_is_counted(lake):
    """Guesses that come at the same moment are counted one by one."""
    def fail(_number):
        for _ in range(5):
            with lake.metadata.write() as tx:
                note_failure(tx, ["name:ann", "address:192.0.2.1"], 7)

    _together(fail)
    with lake.metadata.read() as tx:
        assert tx.execute(select(login_throttles.c.failures)).scalars().all() == [RIVALS * 5] * 2


def test_a_series_of_ticks_is_made_once(lake):
    """Two streams that meet the same symbol first get the same series."""
    add_connection(lake, "one")

    def make(_number):
        with lake.metadata.write() as tx:
            return ensure_tick_series(tx, "one", "A/B", 0)

    assert len(set(_together(make))) == 1


def test_a_notification_is_claimed_once(lake):
    """Two health runs at once share out what is to be sent: nobody gets a message twice, tried the first time or again."""
    owner = add_connection(lake, "one")
    with lake.metadata.write() as tx:
        for number in range(12):
            notify(tx, "stale", "warning", owner, f"note {number}", "", lake.clock.now_us())
    feed = SimpleNamespace(lake=lake, clock=lake.clock)
    for _ in range(2):
        claimed = [note.id for part in _together(lambda _number: _claim(feed, "webhook")) for note in part]
        assert sorted(claimed) == sorted(set(claimed))
        assert len(claimed) == 12
        lake.clock.advance(timedelta(hours=1))


def test_what_another_one_added_at_the_same_moment_is_a_conflict(lake):
    """A name that another process takes between the question and the answer: one gets it, the others are told to try again, or that it is taken."""
    def add(_number):
        with lake.metadata.write() as tx:
            return add_user(tx, "ann", "user", 0)

    found = _together(add)
    assert sum(isinstance(item, UserRow) for item in found) == 1
    assert all(isinstance(item, UserRow | StoreConflictError | InputError) for item in found)
