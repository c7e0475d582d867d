# SPDX-License-Identifier: BSD-3-Clause
"""Reads the events of key_evt_amqp from RabbitMQ and does its work once for
each: here it writes a line of JSON into a file. Copy it, and put your own work
into place of Journal.

    apt install python3-pika
    python3 consumer.py --queue events --out events.jsonl

The broker is in the environment, where no password shows in a list of
processes: AMQP_URL=amqp://user:password@host:5672/vhost

What makes it safe:
- it acknowledges a message after the work is done, so a crash loses none;
- what is done and the message's id are written in one step, so a message that
  comes again, after a restart too, is known and dropped;
- it says when events are missing: the numbers in the ids of one origin have no
  hole, except where the module dropped events and counted them;
- prefetch bounds what is under way;
- it comes back by itself when the broker does;
- the queue has a single active consumer: start a second one as a stand-by and
  the order of events is still kept.
"""

import argparse
import base64
import collections
import json
import logging
import os
import random
import signal
import time

import pika
import pika.exceptions

PREFETCH = 200
REMEMBERED = 1_000_000  # ids; far more than can be sent again
RETRY_MAX = 30  # seconds

log = logging.getLogger("consumer")


class Unreadable(Exception):
    """A message that is not an event; it would fail again and again."""


def parse(method, properties, body):
    """Reads a body <db>\\n<event>\\n<key>; the key may hold line ends.

    Returns database, event and the key's bytes.
    """
    part = body.split(b"\n", 2)
    if len(part) < 3 or not part[0].isdigit():
        raise Unreadable("the body is not database, event and key")
    return int(part[0]), part[1].decode(), part[2]


def split_id(message_id):
    """Reads an id <origin>-<number>. An origin is one load of the module, and
    numbers its events 1, 2, 3 and so on. (With K or E in the module's events, a
    view's letter follows.)"""
    part = (message_id or "").split("-")
    return (part[0], int(part[1])) if len(part) > 1 and part[1].isdigit() else ("", 0)


class Journal:
    """The work: a file with a line for each event, which at the same time tells
    what was done. With a database, insert the id, under a unique index, in the
    transaction that does the work."""

    def __init__(self, name):
        self.ids = set()
        self.order = collections.deque()
        self.last = {}  # by origin, the greatest number of an event
        # Unbuffered: each line is one write, and survives our crash. Where it
        # must survive the machine's too, call os.fsync before acknowledging.
        self.file = open(name, "a+b", buffering=0)
        self.file.seek(0)
        whole = 0
        with open(name, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # what a crash left of a last line is cut off
                whole += len(line)
                self.remember(json.loads(line)["id"])
        self.file.truncate(whole)

    def remember(self, message_id):
        self.ids.add(message_id)
        self.order.append(message_id)
        if len(self.order) > REMEMBERED:
            self.ids.discard(self.order.popleft())
        origin, number = split_id(message_id)
        self.last[origin] = max(self.last.get(origin, 0), number)

    def missing(self, message_id):
        """How many events of the same origin should have come between the last
        one and this. 0 for an origin that is new to us, and for an event that
        comes late. It only tells something where the queue gets all events."""
        origin, number = split_id(message_id)
        return max(number - self.last.get(origin, number) - 1, 0)

    def __contains__(self, message_id):
        return message_id is not None and message_id in self.ids

    def add(self, message_id, db, event, key):
        record = {"id": message_id, "db": db, "event": event}
        try:
            record["key"] = key.decode()
        except UnicodeDecodeError:  # keys are bytes
            record["key_base64"] = base64.b64encode(key).decode()
        self.file.write(json.dumps(record).encode() + b"\n")
        self.remember(message_id)


class Consumer:
    def __init__(self, url, options, journal, parse):
        self.parameters = pika.URLParameters(url)
        self.parameters.heartbeat = 10
        self.parameters.socket_timeout = 10
        self.parameters.client_properties = {"connection_name": "consumer-python"}
        self.options = options
        self.journal = journal
        self.parse = parse
        self.stopping = False

    def stop(self, *_):
        self.stopping = True

    def run(self):
        retry = 1
        while not self.stopping:
            began = time.monotonic()
            try:
                self.consume()
            except (pika.exceptions.AMQPError, OSError) as error:
                if time.monotonic() - began > RETRY_MAX:
                    retry = 1
                # With jitter, so that consumers do not all come back in the same instant.
                pause = retry * random.uniform(0.5, 1)
                log.warning("interrupted, next attempt in %.1f s: %r", pause, error)
                until = time.monotonic() + pause
                while not self.stopping and time.monotonic() < until:
                    time.sleep(0.1)
                retry = min(2 * retry, RETRY_MAX)
        log.info("stopped")

    def consume(self):
        """Works until the connection ends or stop is called. What is delivered
        and not acknowledged then, the broker delivers again."""
        connection = pika.BlockingConnection(self.parameters)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            queue = self.options.queue
            channel.queue_declare(queue, durable=True, arguments={"x-single-active-consumer": True})
            for key in self.options.routing_key:
                channel.queue_bind(queue, self.options.exchange, key)
            log.info("waiting for events in %s", queue)
            # Work that takes longer than the heartbeat belongs in a thread
            # of its own, which acknowledges by add_callback_threadsafe.
            for method, properties, body in channel.consume(queue, inactivity_timeout=0.5):
                if self.stopping:
                    return
                if method is not None:
                    self.take(channel, method, properties, body)
        finally:
            if connection.is_open:
                connection.close()
        raise pika.exceptions.AMQPError("the broker ended the subscription; is the queue deleted?")

    def take(self, channel, method, properties, body):
        message_id = properties.message_id
        if message_id in self.journal:
            log.info("duplicate %s dropped", message_id)
            channel.basic_ack(method.delivery_tag)
            return
        try:
            db, event, key = self.parse(method, properties, body)
        except (Unreadable, UnicodeDecodeError) as error:
            # A dead-letter exchange, if the queue has one, keeps it for you to
            # look at.
            log.warning("rejected %r: %s", message_id, error)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        # An exception here, and it is not acknowledged: it comes again.
        missing = self.journal.missing(message_id)
        self.journal.add(message_id, db, event, key)
        if missing > 0:
            log.warning("%d events are missing before %s: dropped, or not routed to this queue", missing, message_id)
        channel.basic_ack(method.delivery_tag)


def main(parse=parse, exchange="amq.direct", routing_keys=("redis_keyspace_events",)):
    arguments = argparse.ArgumentParser(description="consumes the events of key_evt_amqp")
    arguments.add_argument("--queue", default="events", help="made if it is not there")
    arguments.add_argument("--exchange", default=exchange, help="the module's exchange_name")
    arguments.add_argument("--routing-key", action="append", help="may be given several times; default: " + ", ".join(routing_keys))
    arguments.add_argument("--out", default="events.jsonl", help="file of the events, one a line")
    options = arguments.parse_args()
    options.routing_key = options.routing_key or list(routing_keys)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
    consumer = Consumer(url, options, Journal(options.out), parse)
    signal.signal(signal.SIGTERM, consumer.stop)
    signal.signal(signal.SIGINT, consumer.stop)
    consumer.run()


if __name__ == "__main__":
    main()
