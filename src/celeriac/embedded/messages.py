"""The broker's side of the embedded file: send, claim, settle, look after queues.

Works on an open connection and knows no transport: values in, values out. Times are seconds outside and
milliseconds in the file.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celeriac.embedded.rows import WIDEST, Insert
from celeriac.transports.base import Ack, Buried, Bury, Delivery, Park, QueueCounts, QueueSpec, Release
from celeriac.wire.envelope import Envelope, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celeriac.embedded.file import Link
    from celeriac.transports.base import Settlement

#: bodies above this are read one by one instead of being copied together
_LARGE_BODY_BYTES = 64 << 10
#: rows removed in one transaction, so that others get their turn in between
_BITE = 2000

#: (token, message id): the token is new for every claim
Receipt = tuple[int, int]
#: queue, rank, position, until, meta, body: as the procedure ``send`` wants them
Row = tuple[str, int, int, int | None, bytes, bytes]


class Meta(msgspec.Struct, array_like=True, gc=False):
    """What ``message.meta`` holds."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    route: Route


class Outlook(NamedTuple):
    """What a consumer may expect."""

    busy_queues: list[str]  #: those with something ready
    next_due: int | None  #: when a delay ends, ms
    next_lapse: int | None  #: when a lease may end, ms


_encoder = msgspec.msgpack.Encoder()
_metas = msgspec.msgpack.Decoder(list[Meta])
_meta = msgspec.msgpack.Decoder(Meta)
_index = msgspec.json.Decoder(list[list[int]])
_spec = msgspec.msgpack.Decoder(QueueSpec)

_SEND = Insert("sending", "queue, rank, position, until, meta, body")
_RETURN = Insert("returning_held", "token, id, until, counted")
_BURY = Insert("burying", "token, id, kind, reason, worker, now, expires_at")

#: what a count in a file that somebody else has written to is cut to
_MOST_ATTEMPTS = 1 << 31

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, TypeError)


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def encode_meta(envelope: Envelope, route: Route) -> bytes:
    """Raises TypeError or ValueError for headers that are not plain data."""
    return _encoder.encode(Meta(envelope.headers, envelope.properties, route))


def rank_of(envelope: Envelope) -> int:
    """The place in the order of priorities: 0 is the default, the more urgent the smaller."""
    priority = envelope.properties.get("priority")
    return -priority if isinstance(priority, int) else 0


# ── send ─────────────────────────────────────────────────────────────────────────────────────────────────────


def send(link: Link, rows: Sequence[Row], patience: float) -> None:
    """Store ``rows`` in one transaction."""
    if len(rows) <= WIDEST:
        for sql, parameters in _SEND.statements(rows):
            link.execute(sql, parameters, patience=patience, essential=False)
        return
    link.write(lambda connection: send_within(connection, rows), patience=patience, essential=False)


def send_within(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for sql, parameters in _SEND.statements(rows):
        connection.execute(sql, parameters)


# ── claim ────────────────────────────────────────────────────────────────────────────────────────────────────

_CLAIM = "INSERT INTO claiming (queue, token, until, room) VALUES (?, ?, ?, ?)"
_SWEEP = "INSERT INTO sweeping VALUES (?, ?)"
_OUTLOOK = """
SELECT (SELECT json_group_array(value) FROM json_each(?) WHERE EXISTS (SELECT 1 FROM ready WHERE queue = value)),
       min(coalesce((SELECT min(until) FROM delayed), 9e18), 9e18),
       min(coalesce((SELECT min(until) FROM lease), 9e18), 9e18)
"""
# The rows of a claim as one row, hence one step: columns of numbers, all headers, all bodies. Every group_concat keeps
# the order of the scan and keeps zero bytes (it appends by length); the casts only drop the text label. One aggregate
# for each number is half the price of one JSON text for each row (benchmarks/sqlite_transport.py: claim 64).
# The last value tells whether all are bytes, as they are unless somebody else has written to the file: the length of
# a text is that of its characters.
_FETCH = f"""
SELECT CAST('[[' || group_concat(h.rank) || '],[' || group_concat(h.position) || '],[' || group_concat(h.id) || '],['
         || group_concat(h.attempts) || '],[' || group_concat(h.redelivered) || '],['
         || group_concat(length(m.meta)) || '],[' || group_concat(length(m.body)) || ']]' AS BLOB),
       CAST(group_concat(m.meta, '') AS BLOB),
       CAST(group_concat(CASE WHEN length(m.body) > {_LARGE_BODY_BYTES} THEN '' ELSE m.body END, '') AS BLOB),
       min(typeof(m.meta) = 'blob' AND typeof(m.body) = 'blob')
FROM held h CROSS JOIN message m ON m.id = h.id WHERE h.token = ?
"""
_FETCH_ONE_BY_ONE = """
SELECT h.id, CAST(h.attempts AS INTEGER), CAST(h.redelivered AS INTEGER), CAST(m.meta AS BLOB), CAST(m.body AS BLOB)
FROM held h CROSS JOIN message m ON m.id = h.id WHERE h.token = ? ORDER BY h.rank, h.position, h.id
"""
_DROP_STRAY = "DELETE FROM held WHERE token = ? AND NOT EXISTS (SELECT 1 FROM message WHERE message.id = held.id)"


def outlook(link: Link, queues_json: str) -> Outlook:
    """A reading look: which queues have something, and when the next thing comes due."""

    def look(connection: sqlite3.Connection) -> Outlook:
        names, due, lapse = connection.execute(_OUTLOOK, (queues_json,)).fetchone()
        return Outlook(msgspec.json.decode(names, type=list[str]), _moment(due), _moment(lapse))

    return link.read(look)


def _moment(value: float) -> int | None:
    return None if value > 8e18 else int(max(value, 0))


def sweep(link: Link, now: int, lapsed: int) -> None:
    """Make ready what is due ``now``, and what was held until ``lapsed`` and not renewed; a bounded number each."""
    link.execute(_SWEEP, (now, lapsed))


def claim(link: Link, queue: str, token: int, until: int, room: int) -> list[Delivery]:
    """Hold up to ``room`` messages of ``queue`` and return them in order."""
    changed = link.execute(_CLAIM, (queue, token, until, room))
    if changed == 0:
        return []
    found = link.read(lambda connection: _fetch(connection, queue, token))
    if changed != 2 * len(found) + 1:  # moved from ready to held, and a lease: some have a place, but no message
        link.execute(_DROP_STRAY, (token,))
    return found


def _fetch(connection: sqlite3.Connection, queue: str, token: int) -> list[Delivery]:
    index, metas, bodies, are_bytes = connection.execute(_FETCH, (token,)).fetchone()
    if index is None:
        return []
    columns = _columns(index)
    if columns is None or not are_bytes:
        return _fetch_one_by_one(connection, queue, token)
    ranks, positions, numbers, attempts, returns, meta_sizes, body_sizes = columns
    found: list[Delivery] = []
    start = 0
    for number, tries, returned, meta, size in zip(
        numbers, attempts, returns, _read_metas(meta_sizes, metas), body_sizes, strict=True
    ):
        if size > _LARGE_BODY_BYTES:
            body = connection.execute("SELECT body FROM message WHERE id = ?", (number,)).fetchone()[0]
        else:
            body = bodies[start : start + size]
            start += size
        if isinstance(meta, str):
            found.append(_delivery(queue, (token, number), tries, returned, meta, body))
            continue
        # written out, since a call for each message costs as much as building it
        envelope = Envelope(body, meta.headers, meta.properties)
        found.append(Delivery(envelope, queue, (token, number), meta.route, tries, returned > 0))
    places = list(zip(ranks, positions, numbers, strict=True))
    if sorted(places) != places:  # by number, unless something was delayed, came back, or has priority
        order = sorted(range(len(places)), key=places.__getitem__)
        found = [found[place] for place in order]
    return found


def _columns(index: bytes) -> list[list[int]] | None:
    """The columns of numbers; None if they are none, because somebody has put other values into the file."""
    try:
        columns = _index.decode(index)
    except _UNREADABLE:
        return None
    # the ids have found their messages, so they are numbers and their count is right
    return columns if {len(column) for column in columns} == {len(columns[2])} else None


def _fetch_one_by_one(connection: sqlite3.Connection, queue: str, token: int) -> list[Delivery]:
    """As :func:`_fetch`, when somebody has put values into the file that we never write."""
    found = []
    for number, attempts, redelivered, meta, body in connection.execute(_FETCH_ONE_BY_ONE, (token,)).fetchall():
        [read] = _read_metas([len(meta)], meta)
        attempts = min(max(attempts, 0), _MOST_ATTEMPTS)
        found.append(_delivery(queue, (token, number), attempts, redelivered, read, body))
    return found


def _read_metas(sizes: list[int], metas: bytes) -> Sequence[Meta | str]:
    """All headers in one call: they are glued to a msgpack array. One by one only if one of them is bad."""
    try:
        return _metas.decode(b"\xdd" + len(sizes).to_bytes(4, "big") + metas)
    except _UNREADABLE:
        pass
    found: list[Meta | str] = []
    offset = 0
    for size in sizes:
        try:
            found.append(_meta.decode(metas[offset : offset + size]))
        except _UNREADABLE as error:
            found.append(f"the stored headers cannot be read: {error}")
        offset += size
    return found


def _delivery(queue: str, receipt: Receipt, attempts: int, redelivered: int, meta: Meta | str, body: bytes) -> Delivery:
    if isinstance(meta, str):
        return Delivery(Envelope(body, {}, {}), queue, receipt, Route("", queue), attempts, redelivered > 0, meta)
    envelope = Envelope(body, meta.headers, meta.properties)
    return Delivery(envelope, queue, receipt, meta.route, attempts, redelivered > 0)


def renew(link: Link, receipts: Sequence[Receipt], until: int) -> Sequence[Receipt]:
    """Hold on to messages until ``until``. Returns the receipts that are lost."""
    wanted = msgspec.json.encode(receipts).decode()
    changed = link.execute(
        "UPDATE held SET until = ? WHERE (token, id) IN "
        "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))",
        (until, wanted),
    )
    if changed == len(receipts):
        return []
    kept = link.read(
        lambda connection: set(
            connection.execute(
                "SELECT h.token, h.id FROM json_each(?) e "
                "CROSS JOIN held h ON h.token = json_extract(e.value, '$[0]') AND h.id = json_extract(e.value, '$[1]')",
                (wanted,),
            ).fetchall()
        )
    )
    return [receipt for receipt in receipts if receipt not in kept]


def leave(link: Link, first: int, last: int, kept: Sequence[Receipt] = ()) -> None:
    """Give back everything that is held under these tokens, but for ``kept``; strike a consumer that holds nothing."""
    link.execute("INSERT INTO leaving VALUES (?, ?, ?)", (first, last, msgspec.json.encode(kept).decode()))


def arrive(link: Link, first: int, last: int) -> None:
    """Enter the list of consumers under a range of tokens."""
    link.execute("INSERT OR IGNORE INTO holder (first_token, last_token) VALUES (?, ?)", (first, last))


def forsake(link: Link, first: int, last: int) -> None:
    """Give back what a consumer held that has vanished, and strike it from the list."""
    link.execute("INSERT INTO forsaking (first, last) VALUES (?, ?)", (first, last))


def holds_any(link: Link, first: int, last: int) -> bool:
    """Whether anything is held under these tokens."""
    found: int = link.read(
        lambda connection: connection.execute(
            "SELECT EXISTS (SELECT 1 FROM held WHERE token BETWEEN ? AND ?)", (first, last)
        ).fetchone()[0]
    )
    return found > 0


def holders(link: Link) -> list[tuple[int, int]]:
    """The consumers' ranges of tokens."""
    return link.read(lambda connection: connection.execute("SELECT first_token, last_token FROM holder").fetchall())


# ── settle ───────────────────────────────────────────────────────────────────────────────────────────────────


class Verdicts(NamedTuple):
    """A batch of settlements, sorted by what they do; rows as the procedures want them."""

    acks: list[Receipt]
    returns: list[tuple[int, int, int | None, int]]
    burials: list[tuple[int, int, str, str, str, int, int | None]]


def sort_verdicts(batch: Iterable[Settlement], now: int, buried_until: int | None) -> Verdicts:
    sorted_batch = Verdicts([], [], [])
    for settlement in batch:
        token, number = settlement.receipt
        match settlement.verdict:
            case Ack():
                sorted_batch.acks.append((token, number))
            case Release(count_attempt=counted):
                sorted_batch.returns.append((token, number, None, int(counted)))
            case Park(until=until, count_attempt=counted):
                sorted_batch.returns.append((token, number, milliseconds(until), int(counted)))
            case Bury(reason=reason, quarantine=quarantine, worker=worker):
                kind = "quarantine" if quarantine else "dead"
                sorted_batch.burials.append((token, number, kind, reason, worker, now, buried_until))
    return sorted_batch


def give_back_within(connection: sqlite3.Connection, verdicts: Verdicts) -> None:
    for sql, parameters in _RETURN.statements(verdicts.returns):
        connection.execute(sql, parameters)
    for sql, parameters in _BURY.statements(verdicts.burials):
        connection.execute(sql, parameters)


_LET_GO = "DELETE FROM held WHERE token = ?1 AND id IN (SELECT value FROM json_each(?2))"
_REMOVE = "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))"


def acknowledge_within(connection: sqlite3.Connection, acks: Sequence[Receipt]) -> bool:
    """Remove messages that are all still held, by the set. False: one of them is not, and the caller must roll back.

    Row by row, through the procedure ``finishing``, an acknowledgement costs twice as much: the two programs that
    SQLite sets up for each row are dearer than the two rows they delete (benchmarks/sqlite_transport.py: settle 64).
    """
    by_token: dict[int, list[int]] = {}
    for token, number in acks:
        numbers = by_token.get(token)
        if numbers is None:
            by_token[token] = [number]
        else:
            numbers.append(number)
    for token, numbers in by_token.items():
        if connection.execute(_LET_GO, (token, _as_json(numbers))).rowcount != len(numbers):
            return False
    removed = connection.execute(_REMOVE, (_as_json([number for _, number in acks]),)).rowcount
    return removed == len(acks)


def _as_json(numbers: list[int]) -> str:
    return msgspec.json.encode(numbers).decode()


def take_lost(connection: sqlite3.Connection) -> list[Receipt]:
    """The receipts that the last settlement found no longer held."""
    found = connection.execute("SELECT token, id FROM lost").fetchall()
    connection.execute("DELETE FROM lost")
    return found


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────


def declare(link: Link, specs: Sequence[QueueSpec]) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for spec in specs:
            connection.execute(
                "INSERT INTO queue (name, spec) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET spec = excluded.spec",
                (spec.name, _encoder.encode(spec)),
            )
            if spec.exchange:
                connection.execute(
                    "INSERT OR REPLACE INTO binding (exchange, queue, routing_key, exchange_type) VALUES (?, ?, ?, ?)",
                    (spec.exchange, spec.name, spec.routing_key, spec.exchange_type),
                )

    link.write(work)


def bindings(link: Link, exchange: str) -> list[tuple[str, str, str]]:
    """``(exchange type, routing key, queue)`` of what is bound to ``exchange``."""
    return link.read(
        lambda connection: connection.execute(
            "SELECT exchange_type, routing_key, queue FROM binding WHERE exchange = ?", (exchange,)
        ).fetchall()
    )


def names(link: Link) -> list[str]:
    """Queues that are declared or hold something."""
    found = link.read(
        lambda connection: connection.execute(
            # distinct names by skipping from one to the next: the table may hold millions of rows of one queue
            "WITH RECURSIVE step (name) AS (SELECT min(queue) FROM ready UNION ALL "
            "SELECT (SELECT min(queue) FROM ready WHERE queue > step.name) FROM step WHERE step.name IS NOT NULL) "
            # as bytes, since a name that others have written need not be text
            "SELECT CAST(name AS BLOB) FROM step WHERE name IS NOT NULL UNION SELECT CAST(name AS BLOB) FROM queue "
            "UNION SELECT DISTINCT CAST(queue AS BLOB) FROM delayed "
            "UNION SELECT DISTINCT CAST(queue AS BLOB) FROM held ORDER BY 1"
        ).fetchall()
    )
    return [name.decode("utf-8", "replace") for (name,) in found]


def depth(link: Link, queue: str) -> int:
    count: int = link.read(
        lambda connection: connection.execute(
            "SELECT (SELECT count(*) FROM ready WHERE queue = ?1) + (SELECT count(*) FROM delayed WHERE queue = ?1)",
            (queue,),
        ).fetchone()[0]
    )
    return count


def counts(link: Link, queue: str, now: int) -> QueueCounts:
    """What is in ``queue``; delayed messages whose time has come count as waiting, whoever moves them."""
    waiting, delayed, held, dead, quarantined = link.read(
        lambda connection: connection.execute(
            "SELECT (SELECT count(*) FROM ready WHERE queue = ?1)"
            " + (SELECT count(*) FROM delayed WHERE queue = ?1 AND until <= ?2),"
            " (SELECT count(*) FROM delayed WHERE queue = ?1 AND until > ?2),"
            " (SELECT count(*) FROM held WHERE queue = ?1),"
            " (SELECT count(*) FROM buried WHERE queue = ?1 AND kind = 'dead'),"
            " (SELECT count(*) FROM buried WHERE queue = ?1 AND kind = 'quarantine')",
            (queue, now),
        ).fetchone()
    )
    return QueueCounts(waiting=waiting, delayed=delayed, held=held, dead=dead, quarantined=quarantined)


def purge(link: Link, queue: str) -> int:
    """Remove everything that waits in ``queue``, in bites."""
    removed = 0
    for table, key in (("ready", "queue, rank, position, id"), ("delayed", "until, id")):

        def bite(connection: sqlite3.Connection, table: str = table, key: str = key) -> int:
            rows = connection.execute(f"SELECT id, {key} FROM {table} WHERE queue = ? LIMIT {_BITE}", (queue,))
            found = rows.fetchall()
            marks = ",".join("?" * (key.count(",") + 1))
            for number, *place in found:
                connection.execute(f"DELETE FROM {table} WHERE ({key}) = ({marks})", place)
                connection.execute("DELETE FROM message WHERE id = ?", (number,))
            return len(found)

        while count := link.write(bite):
            removed += count
    return removed


def delete(link: Link, queue: str) -> None:
    purge(link, queue)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM binding WHERE queue = ?", (queue,))
        connection.execute("DELETE FROM queue WHERE name = ?", (queue,))

    link.write(work)


# ── the buried ───────────────────────────────────────────────────────────────────────────────────────────────


def buried(link: Link, queues: Sequence[str], limit: int) -> list[Buried]:
    """The newest dead letters and quarantined messages of these queues, newest first."""
    rows = link.read(
        lambda connection: connection.execute(
            "SELECT id, kind, queue, reason, worker, buried_at, attempts, meta, body FROM buried "
            f"WHERE queue IN ({','.join('?' * len(queues))}) ORDER BY id DESC LIMIT ?",
            (*queues, limit),
        ).fetchall()
    )
    return [
        Buried(
            id=str(number), quarantined=kind == "quarantine", queue=queue, reason=reason, worker=worker,
            buried_at=at / 1000, attempts=attempts, envelope=_envelope(meta, body), raw=body,
        )
        for number, kind, queue, reason, worker, at, attempts, meta, body in rows
    ]  # fmt: skip


def _envelope(meta: bytes, body: bytes) -> Envelope | None:
    try:
        read = _meta.decode(meta)
    except _UNREADABLE:
        return None
    return Envelope(body, read.headers, read.properties)


def replay(link: Link, ids: Sequence[int], now: int) -> list[str]:
    """Put buried messages back into their queues with a fresh count of attempts; the queues that got one."""

    def work(connection: sqlite3.Connection) -> list[str]:
        queues = []
        for number in ids:
            row = connection.execute("SELECT queue, rank, meta, body FROM buried WHERE id = ?", (number,)).fetchone()
            if row is not None:
                queue, rank, meta, body = row
                send_within(connection, [(queue, rank, now, None, meta, body)])
                connection.execute("DELETE FROM buried WHERE id = ?", (number,))
                queues.append(queue)
        return queues

    return link.write(work, essential=False)


def discard(link: Link, ids: Sequence[int]) -> int:
    """Throw buried messages away; how many were there."""

    def work(connection: sqlite3.Connection) -> int:
        return sum(connection.execute("DELETE FROM buried WHERE id = ?", (number,)).rowcount for number in ids)

    return link.write(work, essential=False)


# ── fan-out ──────────────────────────────────────────────────────────────────────────────────────────────────

#: what subscribers may miss: more than this many messages, or older than this many milliseconds
_REMEMBERED, _REMEMBERED_MS = 10_000, 60_000
#: rows that one look reads
_LOOK_AT = 1000


def cast(link: Link, rows: Sequence[tuple[str, bytes]], now: int, patience: float) -> None:
    """Store ``(exchange, message)`` for whoever reads within the next minute; the oldest make room."""

    def work(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO broadcast (topic, sent_at, envelope) VALUES (?, ?, ?)",
            [(exchange, now, data) for exchange, data in rows],
        )
        newest = connection.execute("SELECT max(id) FROM broadcast").fetchone()[0]
        connection.execute("DELETE FROM broadcast WHERE id <= ?", (newest - _REMEMBERED,))
        connection.execute(
            "DELETE FROM broadcast WHERE id IN (SELECT id FROM broadcast ORDER BY id LIMIT 100) AND sent_at < ?",
            (now - _REMEMBERED_MS,),
        )

    link.write(work, patience=patience, essential=False)


def last_cast(link: Link) -> int:
    number: int = link.read(
        # the sequence, since the table itself may have been trimmed empty
        lambda connection: connection.execute(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'broadcast'), 0)"
        ).fetchone()[0]
    )
    return number


def casts_since(link: Link, number: int, exchange: str, oldest: int) -> tuple[int, list[bytes], bool]:
    """The last id looked at, what was sent to ``exchange`` not before ``oldest``, and whether there may be more."""
    rows = link.read(
        lambda connection: connection.execute(
            "SELECT id, CASE WHEN topic = ? AND sent_at >= ? THEN envelope END FROM broadcast WHERE id > ? "
            "ORDER BY id LIMIT ?",
            (exchange, oldest, number, _LOOK_AT),
        ).fetchall()
    )
    seen = rows[-1][0] if rows else number
    # somebody else may have put other values into the file
    return seen, [data for _, data in rows if isinstance(data, bytes)], len(rows) == _LOOK_AT
