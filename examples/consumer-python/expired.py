# SPDX-License-Identifier: BSD-3-Clause
"""Takes over a listener of Redis's own notifications: what it subscribed to as
a Pub/Sub channel, it binds as a routing key, and nothing is missed while it is
away. consumer.py, beside it, does the rest.

The module sends what Redis would publish when events has E (or K):

    loadmodule .../libredis_keyspace_amqp.so Ex
    key_evt_amqp.exchange_name amq.topic
    key_evt_amqp.key_mask ALL
    key_evt_amqp.mandatory no

and in place of

    pubsub = redis.Redis().pubsub()
    pubsub.subscribe("__keyevent@0__:expired")
    for message in pubsub.listen(): ...

run

    apt install python3-pika
    python3 expired.py --queue expired --out expired.jsonl
"""

import re

import consumer

# The routing key is the channel's name, the body is the channel's message.
CHANNEL = re.compile(r"__keyevent@(\d+)__:(.+)")


def parse(method, properties, body):
    # pika gives bytes where a routing key is not UTF-8.
    channel = isinstance(method.routing_key, str) and CHANNEL.fullmatch(method.routing_key)
    if not channel:
        raise consumer.Unreadable(f"{method.routing_key!r} is no __keyevent channel")
    return int(channel[1]), channel[2], body


if __name__ == "__main__":
    consumer.main(parse, exchange="amq.topic", routing_keys=["__keyevent@0__:expired"])
