"""AMQP 0-9-1 as RabbitMQ speaks it: codec, connection without I/O, and its blocking and asyncio shells."""
