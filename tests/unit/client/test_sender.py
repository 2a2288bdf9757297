"""Publishing: within a deadline, tried again where that makes sense, one connection per process."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.client.sender import PublishPolicy, Sender
from celeriac.errors import BrokerUnavailable, ImproperlyConfigured, PublishUnknown, Unroutable
from celeriac.transports.base import Capabilities
from celeriac.wire.envelope import Envelope, Outgoing, Route
from celeriac.wire.task_message import TaskCall

CAPABILITIES = Capabilities(
    leases=True, delays=True, priorities=10, fanout=False, counts_attempts=True, confirms=True, dead_letters=True,
    ordered=True, survives_restart=False, max_batch=400,
)  # fmt: skip


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.at = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.at

    def time(self) -> float:
        return 1000.0

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds


class Broker:
    capabilities = CAPABILITIES

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.batches: list[int] = []
        self.deadlines: list[float] = []
        self.publishers = 0
        self.closed = 0

    def publisher(self) -> Broker:
        self.publishers += 1
        return self

    def publish(self, batch: Any, deadline: float) -> None:
        self.deadlines.append(deadline)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(batch))

    def close(self) -> None:
        self.closed += 1


def outgoing() -> Outgoing:
    return Outgoing(Envelope(b"", {}, {}), Route("", "q"))


def sender(broker: Broker, clock: Any, **policy: Any) -> Sender:
    return Sender(lambda: broker, PublishPolicy(**policy), clock, clock.sleep)  # type: ignore[arg-type,return-value]


def test_one_connection_for_all_sends():
    broker, clock = Broker(), Clock()
    sending = sender(broker, clock, timeout=7)
    for _ in range(3):
        sending.send([outgoing()])
    assert (broker.publishers, broker.batches, broker.deadlines) == (1, [1, 1, 1], [107.0] * 3)
    sending.close()
    sending.send([outgoing()])
    assert (broker.publishers, broker.closed) == (2, 1)


def test_passing_troubles_are_tried_again_with_growing_pauses():
    broker, clock = Broker(*[BrokerUnavailable("down"), PublishUnknown("?"), BrokerUnavailable("down")]), Clock()
    sender(broker, clock).send([outgoing()])
    assert clock.pauses == [0.0, 0.2, 0.4]
    assert broker.batches == [1]


def test_the_number_of_tries_is_limited():
    broker, clock = Broker(*[BrokerUnavailable(str(number)) for number in range(9)]), Clock()
    with pytest.raises(BrokerUnavailable, match="3"):
        sender(broker, clock).send([outgoing()])
    with pytest.raises(BrokerUnavailable, match="4"):
        sender(broker, clock, max_retries=0).send([outgoing()])


def test_the_deadline_holds_for_all_tries_together():
    broker, clock = Broker(*[BrokerUnavailable("down")] * 100), Clock()
    with pytest.raises(BrokerUnavailable):
        sender(broker, clock, max_retries=None, timeout=5, interval_max=2, interval_step=1).send([outgoing()])
    assert clock.at <= 105
    assert set(broker.deadlines) == {105.0}


@pytest.mark.parametrize("error", [Unroutable("no queue"), ImproperlyConfigured("never")])
def test_answers_that_would_not_change_are_final(error: Exception):
    broker, clock = Broker(error), Clock()
    with pytest.raises(type(error)):
        sender(broker, clock).send([outgoing()])
    assert clock.pauses == []


def test_a_lost_socket_is_an_operational_error():
    broker, clock = Broker(ConnectionResetError("reset")), Clock()
    with pytest.raises(BrokerUnavailable, match="reset"):
        sender(broker, clock).send([outgoing()])


def test_bulk_is_cut_to_what_the_broker_takes():
    broker, clock = Broker(), Clock()
    sender(broker, clock).send_bulk([outgoing() for _ in range(1000)])
    assert broker.batches == [400, 400, 200]


def test_messages_know_their_times():
    sending = sender(Broker(), Clock())
    call = TaskCall(task="t", id="i", eta=datetime(2030, 1, 1, tzinfo=UTC), expires="2031-01-01T00:00:00Z")
    made = sending.prepare(call, Route("", "q"))
    assert made.not_before == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert made.expires == datetime(2031, 1, 1, tzinfo=UTC).timestamp()
    assert sending.prepare(TaskCall(task="t", id="i"), Route("", "q")).not_before is None


def test_a_forked_child_connects_anew():
    broker, clock = Broker(), Clock()
    sending = sender(broker, clock)
    sending.send([outgoing()])
    child = os.fork()
    if child == 0:  # the exit status tells how many connections the child has seen
        sending.send([outgoing()])
        sending.close()
        os._exit(broker.publishers)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    sending.send([outgoing()])
    assert broker.publishers == 1


class Overlapping(Broker):
    """Answers when it is asked to; ``failures`` are those of the answers."""

    def __init__(self, *failures: Exception, refusals: int = 0) -> None:
        super().__init__(*failures)
        self.refusals = refusals
        self.log: list[str] = []

    def begin(self, batch: Any, deadline: float) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable("refused")
        self.log.append(f"begin {len(batch)}")

        def end() -> None:
            self.log.append("end")
            if self.failures:
                raise self.failures.pop(0)
            self.batches.append(len(batch))

        return end


def test_a_stream_makes_one_batch_while_the_broker_works_on_another():
    broker, told = Overlapping(), []
    sending = sender(broker, Clock())
    sending.on_sent = lambda batch: told.append(len(batch))
    with sending.stream() as stream:
        for count in (3, 2, 401, 0):
            broker.log.append(f"made {count}")
            stream.send([outgoing()] * count)
    assert broker.log == [
        "made 3", "begin 3", "made 2", "end", "begin 2", "made 401", "end", "begin 400", "end", "begin 1", "made 0",
        "end",
    ]  # fmt: skip
    assert broker.batches == told == [3, 2, 400, 1]


def test_a_stream_goes_on_after_passing_troubles_and_keeps_the_order():
    broker, clock = Overlapping(BrokerUnavailable("down"), PublishUnknown("?"), refusals=1), Clock()
    with sender(broker, clock).stream() as stream:
        stream.send([outgoing()] * 1)
        clock.at += 60  # whatever the caller does meanwhile is not the broker's fault
        stream.send([outgoing()] * 2)
        stream.send([outgoing()] * 3)
    assert broker.batches == [1, 2, 3]


def test_after_a_batch_that_fails_nothing_is_sent():
    broker = Overlapping(Unroutable("no queue"))
    stream = sender(broker, Clock()).stream()
    stream.send([outgoing()] * 1)
    with pytest.raises(Unroutable):
        stream.send([outgoing()] * 2)
    assert broker.log == ["begin 1", "end"]


def test_an_error_of_the_caller_leaves_no_answer_behind():
    broker = Overlapping()
    with suppress(ValueError), sender(broker, Clock()).stream() as stream:
        stream.send([outgoing()])
        raise ValueError("mine")
    assert broker.batches == [1]


def test_brokers_that_cannot_overlap_get_batch_by_batch():
    broker = Broker()
    with sender(broker, Clock()).stream() as stream:
        stream.send([outgoing()] * 500)
    assert broker.batches == [400, 100]
