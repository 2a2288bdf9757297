"""Sends: what a batch becomes on the wire, and what the broker's answers mean for who sent it.

Blocking, thread-safe, fork-safe. Confirms are pipelined: a batch is written at once and its confirms are waited for
together. Queues are declared before the first message goes to them, as Celery does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celeriac.amqp.messages import Publication
from celeriac.errors import PublishRejected, Unroutable
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.attempt import Attempt
from celeriac.transports.amqp.crowd import Crowd, Job
from celeriac.transports.amqp.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celeriac.amqp.blocking_channel import BlockingChannel
    from celeriac.clock import Clock
    from celeriac.transports.amqp.link import Line, Link
    from celeriac.transports.amqp.topology import Specs
    from celeriac.transports.base import Outgoing

#: seconds; a shorter delay is not worth a trip through the broker, the worker keeps the message
_LEAST_DELAY = 1


class PublisherSettings(Protocol):
    broker_transport_options: Mapping[str, Any]
    broker_max_message_bytes: int
    broker_native_delayed_delivery_queue_type: str


class AmqpPublisher:
    def __init__(self, link: Link, specs: Specs, settings: PublisherSettings, clock: Clock) -> None:
        self._link = link
        self._specs = specs
        self._clock = clock
        self._max_bytes = settings.broker_max_message_bytes
        self._confirms = settings.broker_transport_options.get("confirm_publish") is not False
        self._ladder_type = settings.broker_native_delayed_delivery_queue_type
        self._crowd = Crowd()
        if not self._confirms:
            link.close_at_exit()

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        publications: list[Publication] = []
        queues: dict[str, None] = {}
        delayed: dict[str, None] = {}
        for outgoing in batch:
            route, envelope = outgoing.route, outgoing.envelope
            self.check_size(envelope.body)
            properties = envelope.properties
            if "delivery_mode" not in properties:
                properties = {**properties, "delivery_mode": 2}
            exchange, key = route.exchange, route.routing_key
            if not exchange:
                if not key:
                    raise Unroutable("A message names neither an exchange nor a queue.")
                queues[key] = None
                if outgoing.not_before is not None:
                    exchange, key = self._delayed(key, outgoing.not_before)
                    if exchange:
                        delayed[route.routing_key] = None
            elif outgoing.not_before is not None:
                # other delays through a named exchange are the worker's: the ladder cannot keep two exchanges apart
                served = self._specs.served_by_ladder(exchange, key)
                entrance, laddered = self._delayed(key, outgoing.not_before) if served else ("", key)
                if served and entrance:
                    exchange, key = entrance, laddered
                    delayed[served.name] = None
            publications.append(
                Publication(exchange, key, properties, envelope.headers, envelope.body, self._confirms)
            )  # fmt: skip
        self.send(publications, queues, delayed, deadline)

    def check_size(self, body: bytes) -> None:
        if len(body) > self._max_bytes:
            raise PublishRejected(
                f"A message body has {len(body)} bytes; broker_max_message_bytes allows {self._max_bytes}. Store the "
                f"data elsewhere and send a reference, or raise the setting."
            )

    def _delayed(self, queue: str, not_before: float) -> tuple[str, str]:
        seconds = delays.seconds_of(not_before, self._clock.time())
        if seconds >= _LEAST_DELAY:
            key = delays.delayed_key(seconds, queue)
            if key is not None:
                return delays.ENTRANCE, key
        return "", queue

    def delayed(self, queue: str, until: float) -> tuple[str, str]:
        """Exchange and routing key that bring a message to ``queue`` at about ``until``."""
        return self._delayed(queue, until)

    def send(
        self, publications: Sequence[Publication], queues: Iterable[str], delayed: Iterable[str], deadline: float
    ) -> None:
        """Publish what is ready to be written. ``queues`` have to be there, ``delayed`` at the end of the ladder.

        Threads that wait for the connection share a round trip: whoever gets it sends for all.
        """
        if not publications:
            return
        job = Job(publications, list(queues), list(delayed))
        if self._link.is_free and self._crowd.is_empty:  # mostly: there is nobody to share a trip with
            with self._link.line(deadline) as line:
                self._attempt(line, self._channel(line, deadline), [job], deadline)
        else:
            with self._crowd.waiting(job), self._link.line(deadline) as line:
                if not job.is_done:
                    self._work_off(line, job, deadline)
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # its error leads here by its traceback

    def _channel(self, line: Line, deadline: float) -> BlockingChannel:
        channel = line.publishing(self._confirms, deadline)
        if line.connection.is_blocked:
            channel.publish((), deadline)  # waits, since a declaration would do so without saying why
        return channel

    def _work_off(self, line: Line, mine: Job, deadline: float) -> None:
        channel = self._channel(line, deadline)
        jobs = self._crowd.take(mine, lambda job: _is_plain(job, line))
        try:
            self._attempt(line, channel, jobs, deadline)
        except BaseException:
            # whose fault it was is not known: the others try by themselves
            self._crowd.put_back(jobs[1:])
            raise

    def _attempt(self, line: Line, channel: BlockingChannel, jobs: list[Job], deadline: float) -> None:
        publications = jobs[0].publications
        if len(jobs) > 1:
            publications = [one for job in jobs for one in job.publications]
        self._prepare(line, jobs[0].queues, jobs[0].delayed, deadline)
        attempt = Attempt(line, channel, publications, deadline)
        attempt.run()
        if attempt.is_confirmed:
            for job in jobs:
                job.end(None)
            return
        if attempt.lost_queues():
            for job in jobs:
                self._prepare(line, job.queues, job.delayed, deadline)
            attempt.run_again()
        if attempt.is_silent:
            self._link.give_up(line)
        start = 0
        for job in jobs:
            stop = start + len(job.publications)
            job.end(attempt.verdict(start, stop))
            start = stop

    def _prepare(self, line: Line, queues: Iterable[str], delayed: Iterable[str], deadline: float) -> None:
        missing = [queue for queue in queues if queue not in line.queues]
        unbound = [queue for queue in delayed if queue not in line.delayed]
        if missing or unbound:
            topology = Topology(line, self._specs, self._ladder_type, deadline)
            for queue in missing:
                topology.ensure(queue)
            for queue in unbound:
                topology.ensure_delayed(queue)

    def close(self) -> None:
        self._link.close()


def _is_plain(job: Job, line: Line) -> bool:
    """Nothing has to be declared for it, and all of it goes where messages have gone before."""
    return (
        all(queue in line.queues for queue in job.queues)
        and all(queue in line.delayed for queue in job.delayed)
        and all(
            not one.exchange or one.exchange == delays.ENTRANCE or (one.exchange, one.routing_key) in line.proven
            for one in job.publications
        )
    )
