"""The no-op app of Dramatiq."""

import os

import dramatiq
import tally

BROKER = os.environ["BENCH_BROKER"]
RESULTS = os.environ.get("BENCH_RESULTS")

if BROKER.startswith("amqp"):
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=BROKER, confirm_delivery=os.environ.get("BENCH_CONFIRMS") != "0")
else:
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=BROKER)
if RESULTS:
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker.add_middleware(Results(backend=RedisBackend(url=RESULTS, use_namespace_prefix_keys=True)))
dramatiq.set_broker(broker)


@dramatiq.actor(**({"store_results": True} if RESULTS else {}))
def noop(n):
    tally.tick()
    return n


send = noop.send


def bulk(numbers):
    dramatiq.group(noop.message(n) for n in numbers).run()


def fetch(message):
    return message.get_result(block=True, timeout=10_000)
