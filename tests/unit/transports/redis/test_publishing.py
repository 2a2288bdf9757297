"""What the publisher writes without a script, and publishing in two steps."""

from __future__ import annotations

import time
from typing import Any

import pytest

from celeriac.errors import BrokerUnavailable, PublishRejected
from celeriac.redis.keys import Keys
from celeriac.testing.conformance.transport import message, numbered
from celeriac.transports.base import Envelope, Outgoing, Route


@pytest.fixture
def publisher(bench: Any):
    made = bench.transport().publisher()
    yield made
    made.close()


def far() -> float:
    return time.monotonic() + 30


def test_a_batch_for_one_list_takes_no_script_and_leaves_one_token(bench: Any, publisher: Any) -> None:
    bench.link.call("CONFIG", "RESETSTAT")
    publisher.publish(numbered("q", range(2500)), far())
    publisher.publish([message("q")], far())
    assert bench.link.call("LLEN", "q") == 2501
    wake = Keys().wake("q")
    assert bench.link.call("ZCARD", wake) == 1
    assert 0 < bench.link.call("PTTL", wake) <= 2000
    assert "evalsha" not in bench.link.call("INFO", "commandstats").decode()


def test_the_oldest_is_received_first_whichever_way_it_was_sent(bench: Any, publisher: Any, receive_all: Any) -> None:
    publisher.publish(numbered("q", range(3)), far())
    publisher.publish([*numbered("q", range(3, 6)), *numbered("other", [0])], far())  # the script
    publisher.begin(numbered("q", range(6, 9)), far())()
    found = receive_all(bench.consumer("q"), 9)
    assert [int(one.envelope.body) for one in found] == list(range(9))


def test_a_key_of_another_type_is_a_refusal_and_the_connection_stays_good(bench: Any, publisher: Any) -> None:
    bench.link.call("SET", "q", "text")
    for _ in range(2):
        with pytest.raises(PublishRejected, match="WRONGTYPE"):
            publisher.publish([message("q")], far())
        with pytest.raises(PublishRejected, match="WRONGTYPE"):
            publisher.begin([message("q")], far())()
    publisher.publish([message("other")], far())
    assert bench.link.call("LLEN", "other") == 1


def test_a_token_that_cannot_be_left_is_no_reason_to_fail(bench: Any, publisher: Any) -> None:
    bench.link.call("SET", Keys().wake("q"), "text")
    publisher.publish([message("q")], far())
    assert bench.link.call("LLEN", "q") == 1


def test_what_is_begun_is_stored_before_anybody_waits(bench: Any, publisher: Any) -> None:
    end = publisher.begin([message("q")], far())
    ends = far()
    while bench.link.call("LLEN", "q") == 0:
        assert time.monotonic() < ends
    publisher.publish([message("q")], far())  # meanwhile, the same thread sends something else
    end()
    assert bench.link.call("LLEN", "q") == 2


def test_an_answer_that_is_there_counts_however_late_it_is_fetched(bench: Any, publisher: Any) -> None:
    publisher.publish([message("q")], far())  # now there is a connection
    deadline = time.monotonic() + 1.0
    end = publisher.begin([message("q")], deadline)
    ends = far()
    while bench.link.call("LLEN", "q") < 2 or time.monotonic() <= deadline:
        assert time.monotonic() < ends
        time.sleep(0.02)
    end()


def test_nothing_is_sent_when_the_time_is_over(bench: Any, publisher: Any) -> None:
    publisher.publish([message("q")], far())
    with pytest.raises(BrokerUnavailable):
        publisher.publish([message("q")], time.monotonic() - 1.0)
    assert bench.link.call("LLEN", "q") == 1


def test_one_connection_is_enough(bench: Any) -> None:
    publisher = bench.transport(bench.url + "?max_connections=1").publisher()
    end = publisher.begin([message("q")], far())
    publisher.publish([message("q")], far())
    end()
    assert bench.link.call("LLEN", "q") == 2
    publisher.close()


def test_a_batch_that_is_refused_before_it_is_sent_gives_its_connection_back(bench: Any) -> None:
    publisher = bench.transport(broker_max_message_bytes=10).publisher()
    for _ in range(3):
        with pytest.raises(PublishRejected):
            publisher.begin([message("q")], far())
    assert len(publisher._links._idle) == 1
    publisher.close()


def test_a_large_batch_arrives_whole(bench: Any, publisher: Any, receive_all: Any) -> None:
    route = Route("", "q")
    text = b"x" * 200_000
    batch = [Outgoing(Envelope(text, one.envelope.headers, {}), route) for one in numbered("q", range(10))]
    publisher.publish(batch, far())
    assert {one.envelope.body for one in receive_all(bench.consumer("q"), 10)} == {text}
