// SPDX-License-Identifier: BSD-3-Clause
// Reads the events of key_evt_amqp from RabbitMQ and does its work once for
// each: here it writes a line of JSON into a file. Copy it, and put your own
// work into place of Journal.
//
//     npm install
//     node consumer.js --queue events --out events.jsonl
//
// The broker is in the environment, where no password shows in a list of
// processes: AMQP_URL=amqp://user:password@host:5672/vhost
//
// What makes it safe:
// - it acknowledges a message after the work is done, so a crash loses none;
// - what is done and the message's id are written in one step, so a message
//   that comes again, after a restart too, is known and dropped;
// - it says when events are missing: the numbers in the ids of one origin have
//   no hole, except where the module dropped events and counted them;
// - prefetch bounds what is under way;
// - it comes back by itself when the broker does;
// - the queue has a single active consumer: start a second one as a stand-by
//   and the order of events is still kept.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { parseArgs } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const amqp = require('amqplib');

const PREFETCH = 200;
const REMEMBERED = 1_000_000; // ids; far more than can be sent again
const RETRY_MAX = 30_000; // milliseconds

const { values: options } = parseArgs({
  options: {
    queue: { type: 'string', default: 'events' }, // made if it is not there
    exchange: { type: 'string', default: 'amq.direct' }, // the module's exchange_name
    'routing-key': { type: 'string', default: 'redis_keyspace_events' },
    out: { type: 'string', default: 'events.jsonl' },
  },
});
const url = new URL(process.env.AMQP_URL || 'amqp://guest:guest@127.0.0.1:5672/');
if (!url.searchParams.has('heartbeat')) url.searchParams.set('heartbeat', '10'); // seconds
const stop = new AbortController();
const log = (text) => console.error(`${new Date().toISOString()} ${text}`);

class Unreadable extends Error {}

// parse reads a body <db>\n<event>\n<key>; the key, of any bytes, is the rest.
function parse(body) {
  const first = body.indexOf('\n');
  const second = body.indexOf('\n', first + 1);
  const db = body.toString('latin1', 0, Math.max(first, 0));
  if (second < 0 || !/^\d+$/.test(db)) {
    throw new Unreadable('the body is not database, event and key');
  }
  return { db: Number(db), event: body.toString('utf8', first + 1, second), key: body.subarray(second + 1) };
}

// splitId reads an id <origin>-<number>. An origin is one load of the module, and
// numbers its events 1, 2, 3 and so on. (With K or E in the module's events, a
// view's letter follows.)
function splitId(id) {
  const [origin, number] = String(id).split('-');
  return /^\d+$/.test(number) ? [origin, Number(number)] : ['', 0];
}

// Journal is the work: a file with a line for each event, which at the same
// time tells what was done. With a database, insert the id, under a unique
// index, in the transaction that does the work.
class Journal {
  #ids = new Set(); // in the order of insertion
  #last = new Map(); // by origin, the greatest number of an event
  #file;

  static async open(name) {
    const journal = new Journal();
    journal.#file = fs.openSync(name, 'a+', 0o600);
    const end = fs.fstatSync(journal.#file).size;
    const last = Buffer.alloc(1);
    let whole = end;
    // What a crash left of a last line is cut off.
    while (whole > 0 && (fs.readSync(journal.#file, last, 0, 1, whole - 1), last[0] !== 0x0a)) whole--;
    fs.ftruncateSync(journal.#file, whole);
    for await (const line of readline.createInterface({ input: fs.createReadStream(name) })) {
      journal.#remember(JSON.parse(line).id);
    }
    return journal;
  }

  has(id) {
    return id !== undefined && this.#ids.has(id);
  }

  #remember(id) {
    this.#ids.add(id);
    if (this.#ids.size > REMEMBERED) this.#ids.delete(this.#ids.values().next().value);
    const [origin, number] = splitId(id);
    this.#last.set(origin, Math.max(this.#last.get(origin) ?? 0, number));
  }

  // missing is how many events of the same origin should have come between the
  // last one and this. It is 0 for an origin that is new to us, and for an event
  // that comes late. It only tells something where the queue gets all events.
  missing(id) {
    const [origin, number] = splitId(id);
    return Math.max(number - (this.#last.get(origin) ?? number) - 1, 0);
  }

  // add writes one line in one call. It survives our crash; where it must
  // survive the machine's too, call fs.fsyncSync before the acknowledgement.
  async add(id, { db, event, key }) {
    const record = { id, db, event };
    const text = key.toString('utf8');
    if (Buffer.from(text).equals(key)) record.key = text;
    else record.key_base64 = key.toString('base64'); // keys are bytes
    fs.writeSync(this.#file, `${JSON.stringify(record)}\n`);
    this.#remember(id);
  }
}

// take does the work of one message and acknowledges it.
async function take(channel, message, journal) {
  const id = message.properties.messageId;
  if (journal.has(id)) {
    log(`duplicate ${id} dropped`);
    channel.ack(message);
    return;
  }
  let event;
  try {
    event = parse(message.content);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    // It would fail again and again. A dead-letter exchange, if the queue has
    // one, keeps it for you to look at.
    log(`rejected ${id}: ${error.message}`);
    channel.reject(message, false);
    return;
  }
  const missing = journal.missing(id);
  await journal.add(id, event); // an error here: not acknowledged, it comes again
  if (missing > 0) log(`${missing} events are missing before ${id}: dropped, or not routed to this queue`);
  channel.ack(message);
}

// consume works until the connection ends or we are stopped. What is delivered
// and not acknowledged then, the broker delivers again.
async function consume(journal) {
  const connection = await amqp.connect(url.href, {
    timeout: 10_000,
    clientProperties: { connection_name: 'consumer-node' },
  });
  let stopped;
  const ended = new Promise((resolve, reject) => {
    stopped = resolve;
    connection.on('error', reject);
    connection.on('close', () => reject(new Error('the connection was closed')));
    stop.signal.addEventListener('abort', stopped);
    if (stop.signal.aborted) stopped();
    open(connection, journal, reject).catch(reject);
  });
  try {
    await ended;
  } finally {
    stop.signal.removeEventListener('abort', stopped);
    await connection.close().catch(() => {}); // it may be closed already
  }
}

async function open(connection, journal, fail) {
  const channel = await connection.createChannel();
  channel.on('error', fail);
  await channel.prefetch(PREFETCH);
  await channel.assertQueue(options.queue, { durable: true, arguments: { 'x-single-active-consumer': true } });
  await channel.bindQueue(options.queue, options.exchange, options['routing-key']);
  let work = Promise.resolve(); // one message after the other, to keep their order
  let failed = false;
  await channel.consume(options.queue, (message) => {
    work = work.then(async () => {
      if (failed || stop.signal.aborted) return;
      if (!message) throw new Error('the broker ended the subscription; is the queue deleted?');
      await take(channel, message, journal);
    }).catch((error) => {
      failed = true; // what follows must not overtake
      fail(error);
    });
  });
  log(`waiting for events in ${options.queue}`);
}

async function main() {
  process.on('SIGTERM', () => stop.abort());
  process.on('SIGINT', () => stop.abort());
  const journal = await Journal.open(options.out);
  for (let retry = 1000; !stop.signal.aborted; retry = Math.min(2 * retry, RETRY_MAX)) {
    const began = Date.now();
    try {
      await consume(journal);
    } catch (error) {
      if (Date.now() - began > RETRY_MAX) retry = 1000;
      // With jitter, so that consumers do not all come back in the same instant.
      const pause = retry * (0.5 + Math.random() / 2);
      log(`interrupted, next attempt in ${Math.round(pause)} ms: ${error.message}`);
      await sleep(pause, undefined, { signal: stop.signal }).catch(() => {});
    }
  }
  log('stopped');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
