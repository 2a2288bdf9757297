"""The no-op app of TaskIQ: BENCH_KIND chooses its Redis list, its Redis stream or its RabbitMQ broker."""

import asyncio
import os

import tally
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

BROKER = os.environ["BENCH_BROKER"]
RESULTS = os.environ.get("BENCH_RESULTS")

if BROKER.startswith("amqp"):
    from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

    # a classic queue, as the others have; enough prefetch for the tasks that run at the same time
    broker = AioPikaBroker(BROKER, qos=200, task_queues=[Queue(type=QueueType.CLASSIC)])
elif os.environ.get("BENCH_KIND") == "stream":
    broker = RedisStreamBroker(BROKER, consumer_id="0")
else:
    broker = ListQueueBroker(BROKER)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(RESULTS, prefix_str="taskiq-result"))


@broker.task(task_name="bench:noop")
async def noop(n: int) -> int:
    tally.tick()
    return n


async def opened():
    await broker.startup()


async def closed():
    await broker.shutdown()


send = noop.kiq


async def bulk(numbers):
    numbers = list(numbers)
    for start in range(0, len(numbers), 200):
        await asyncio.gather(*map(noop.kiq, numbers[start : start + 200]))


async def fetch(task):
    result = await task.wait_result(check_interval=0.0005, timeout=10)
    return result.return_value
