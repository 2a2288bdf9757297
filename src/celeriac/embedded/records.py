"""The result store's side of the embedded file, and the settlement that both sides share.

Works on a :class:`~celeriac.embedded.file.Link` and knows no store: values in, values out.
"""

from __future__ import annotations

import sqlite3
from itertools import zip_longest
from typing import TYPE_CHECKING

from celeriac.embedded.messages import acknowledge_within, give_back_within, milliseconds, send_within, take_lost
from celeriac.embedded.rows import Insert
from celeriac.wire.result_record import ResultRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.embedded.file import Link
    from celeriac.embedded.messages import Receipt, Row, Verdicts

_FINISH = Insert(
    "finishing", "token, id, task_id, status, content_type, content_encoding, group_id, expires_at, payload"
)
_COLUMNS = "task_id, status, content_type, content_encoding, group_id, expires_at, payload"
_STORE = Insert(
    "result",
    _COLUMNS,
    source="SELECT * FROM ({values}) WHERE column1 IS NOT NULL",
    then="""ON CONFLICT (task_id) DO UPDATE SET
      status = excluded.status, content_type = excluded.content_type, content_encoding = excluded.content_encoding,
      group_id = excluded.group_id, expires_at = excluded.expires_at, payload = excluded.payload
    WHERE result.status <> 'SUCCESS'""",
)
#: up to this many rows one statement for all (one transaction, no BEGIN) is the quicker way, above it sets of rows are
_FEW = 4
_NO_RECEIPT = (None, None)
_NO_RECORD = (None,) * 7
#: a record as a row of the table
_Described = tuple[str, str, str, str, str | None, int | None, bytes]
#: rows that one look for expired things removes
_BITE = 200


def write(link: Link, records: Sequence[ResultRecord], now: int) -> None:
    """Store ``records`` in one transaction. A stored SUCCESS stays."""
    settle(link, records, (), None, now)


def settle(
    link: Link, records: Sequence[ResultRecord], sends: Sequence[Row], verdicts: Verdicts | None, now: int
) -> list[Receipt]:
    """Records, sends and settlements in one transaction. Returns the receipts that were no longer held.

    A few records and acknowledgements, and nothing else, are one statement.
    """
    acks = verdicts.acks if verdicts is not None else []
    described = _described(records, now)
    others = sends or (verdicts is not None and (verdicts.returns or verdicts.burials))
    if not others and max(len(acks), len(records)) <= _FEW:
        return _settle_few(link, described, acks)

    def work(connection: sqlite3.Connection) -> list[Receipt]:
        if not acknowledge_within(connection, acks):
            # a rare thing: begin anew, and find out one by one which are lost
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            for sql, parameters in _FINISH.statements([receipt + _NO_RECORD for receipt in acks]):
                connection.execute(sql, parameters)
        for sql, parameters in _STORE.statements(described):
            connection.execute(sql, parameters)
        if sends:
            send_within(connection, sends)
        if verdicts is None:
            return []
        give_back_within(connection, verdicts)
        return take_lost(connection)

    return link.write(work)


def _settle_few(link: Link, described: list[_Described], acks: Sequence[Receipt]) -> list[Receipt]:
    rows = [(receipt or _NO_RECEIPT) + (record or _NO_RECORD) for receipt, record in zip_longest(acks, described)]
    for sql, parameters in _FINISH.statements(rows):
        changed = link.execute(sql, parameters)
        # each acknowledgement removes two rows and each record changes one, or else there is something to tell
        if acks and changed != 2 * len(acks) + len(described):
            return link.write(take_lost)
    return []


def _described(records: Sequence[ResultRecord], now: int) -> list[_Described]:
    return [
        (
            record.task_id, record.status, record.content_type, record.content_encoding, record.group_id,
            None if record.expires_in is None else now + milliseconds(record.expires_in), record.payload,
        )
        for record in records
    ]  # fmt: skip


def read(link: Link, ids: Sequence[str], now: int) -> dict[str, ResultRecord]:
    """The records there are and that have not expired."""
    found: dict[str, ResultRecord] = {}

    def work(connection: sqlite3.Connection) -> None:
        for start in range(0, len(ids), 500):
            part = list(dict.fromkeys(ids[start : start + 500]))
            marks = ",".join("?" * len(part))
            for row in connection.execute(
                f"SELECT {_COLUMNS} FROM result WHERE task_id IN ({marks}) AND (expires_at IS NULL OR expires_at > ?)",
                [*part, now],
            ).fetchall():
                task_id, status, content_type, encoding, group_id, expires_at, payload = row
                left = None if expires_at is None else (expires_at - now) / 1000
                found[task_id] = ResultRecord(task_id, status, payload, content_type, encoding, group_id, left)

    link.read(work)
    return found


def forget(link: Link, ids: Sequence[str]) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for task_id in ids:
            connection.execute("DELETE FROM result WHERE task_id = ?", (task_id,))

    link.write(work)


def tidy(link: Link, now: int) -> int:
    """Remove a bite of what has expired; returns how many rows went."""

    def work(connection: sqlite3.Connection) -> int:
        removed = 0
        for table, key in (("result", "number"), ("buried", "id"), ("saved_group", "id")):
            removed += connection.execute(
                f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE expires_at <= ? LIMIT {_BITE})",
                (now,),
            ).rowcount
        return removed

    return link.write(work)


def save_group(link: Link, group_id: str, payload: bytes, expires_at: int | None) -> None:
    link.execute(
        "INSERT INTO saved_group (id, expires_at, payload) VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, payload = excluded.payload",
        (group_id, expires_at, payload),
    )


def restore_group(link: Link, group_id: str, now: int) -> bytes | None:
    row = link.read(
        lambda connection: connection.execute(
            "SELECT payload FROM saved_group WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)", (group_id, now)
        ).fetchone()
    )
    return None if row is None else row[0]


def delete_group(link: Link, group_id: str) -> None:
    link.execute("DELETE FROM saved_group WHERE id = ?", (group_id,))
