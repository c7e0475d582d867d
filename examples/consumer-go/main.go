// SPDX-License-Identifier: BSD-3-Clause

// Consumer-go reads the events of key_evt_amqp from RabbitMQ and does its work
// once for each: here it writes a line of JSON into a file. Copy it, and put
// your own work into place of journal.
//
//	go run ./examples/consumer-go -queue events -out events.jsonl
//
// The broker is in the environment, where no password shows in a list of
// processes: AMQP_URL=amqp://user:password@host:5672/vhost
//
// What makes it safe:
//   - it acknowledges a message after the work is done, so a crash loses none;
//   - what is done and the message's id are written in one step, so a message
//     that comes again, after a restart too, is known and dropped;
//   - it says when events are missing: the numbers in the ids of one origin have
//     no hole, except where the module dropped events and counted them;
//   - prefetch bounds what is under way;
//   - it comes back by itself when the broker does;
//   - the queue has a single active consumer: start a second one as a stand-by
//     and the order of events is still kept.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	prefetch   = 200
	remembered = 1_000_000 // ids; far more than can be sent again
	retryMax   = 30 * time.Second
)

var (
	queue      = flag.String("queue", "events", "queue, made if it is not there")
	exchange   = flag.String("exchange", "amq.direct", "the module's exchange_name")
	routingKey = flag.String("routing-key", "redis_keyspace_events", "the module's routing_key")
	out        = flag.String("out", "events.jsonl", "file of the events, one a line")
)

func main() {
	flag.Parse()
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://guest:guest@127.0.0.1:5672/"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done, err := openJournal(*out)
	if err != nil {
		log.Fatal(err)
	}
	defer done.file.Close()
	for retry := time.Second; ; {
		began := time.Now()
		err := consume(ctx, url, done)
		if ctx.Err() != nil {
			log.Print("stopped")
			return
		}
		if time.Since(began) > retryMax {
			retry = time.Second
		}
		// With jitter, so that consumers do not all come back in the same instant.
		pause := retry/2 + rand.N(retry/2)
		log.Printf("interrupted, next attempt in %v: %v", pause.Round(time.Millisecond), err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		retry = min(2*retry, retryMax)
	}
}

// consume works until the connection ends or ctx does. What is delivered and
// not acknowledged then, the broker delivers again.
func consume(ctx context.Context, url string, done *journal) error {
	conn, err := amqp.DialConfig(url, amqp.Config{
		Heartbeat:  10 * time.Second,
		Dial:       amqp.DefaultDial(10 * time.Second),
		Properties: amqp.Table{"connection_name": "consumer-go"},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if _, err := ch.QueueDeclare(*queue, true, false, false, false, amqp.Table{"x-single-active-consumer": true}); err != nil {
		return err
	}
	if err := ch.QueueBind(*queue, *routingKey, *exchange, false, nil); err != nil {
		return err
	}
	deliveries, err := ch.Consume(*queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	log.Printf("waiting for events in %s", *queue)
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-deliveries:
			if !ok {
				select {
				case err := <-closed:
					return err
				default:
					return errors.New("the broker ended the subscription; is the queue deleted?")
				}
			}
			if err := take(&d, done); err != nil {
				return err
			}
		}
	}
}

// take does the work of one message and acknowledges it.
func take(d *amqp.Delivery, done *journal) error {
	if done.has(d.MessageId) {
		log.Printf("duplicate %s dropped", d.MessageId)
		return d.Ack(false)
	}
	e, err := parse(d)
	if err != nil {
		// It would fail again and again. A dead-letter exchange, if the
		// queue has one, keeps it for you to look at.
		log.Printf("rejected %q: %v", d.MessageId, err)
		return d.Reject(false)
	}
	missing := done.missing(e.ID)
	if err := done.add(e); err != nil {
		return err // not acknowledged: it comes again
	}
	if missing > 0 {
		log.Printf("%d events are missing before %s: dropped, or not routed to this queue", missing, e.ID)
	}
	return d.Ack(false)
}

type event struct {
	ID        string  `json:"id"`
	DB        int     `json:"db"`
	Event     string  `json:"event"`
	Key       *string `json:"key,omitempty"`
	KeyBase64 []byte  `json:"key_base64,omitempty"` // keys are bytes: where they are not UTF-8
}

// parse reads a body <db>\n<event>\n<key>; the key may hold line ends.
func parse(d *amqp.Delivery) (*event, error) {
	part := strings.SplitN(string(d.Body), "\n", 3)
	if len(part) < 3 {
		return nil, errors.New("the body has not three parts")
	}
	db, err := strconv.Atoi(part[0])
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	e := &event{ID: d.MessageId, DB: db, Event: part[1]}
	if key := part[2]; utf8.ValidString(key) {
		e.Key = &key
	} else {
		e.KeyBase64 = []byte(key)
	}
	return e, nil
}

// journal is the work: a file with a line for each event, which at the same
// time tells what was done. With a database, insert the id, under a unique
// index, in the transaction that does the work.
type journal struct {
	file *os.File
	ids  map[string]bool
	ring []string // the ids in order, to forget the oldest
	next int
	last map[string]uint64 // by origin, the greatest number of an event
}

func openJournal(name string) (*journal, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: file, ids: map[string]bool{}, ring: make([]string, remembered), last: map[string]uint64{}}
	in, whole := bufio.NewReader(file), int64(0)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			// What a crash left of a last line is cut off.
			return j, file.Truncate(whole)
		}
		var e event
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, at byte %d: %w", name, whole, err)
		}
		whole += int64(len(line))
		j.remember(e.ID)
	}
}

func (j *journal) has(id string) bool { return id != "" && j.ids[id] }

func (j *journal) remember(id string) {
	delete(j.ids, j.ring[j.next])
	j.ids[id], j.ring[j.next] = true, id
	j.next = (j.next + 1) % len(j.ring)
	if origin, number, ok := splitID(id); ok {
		j.last[origin] = max(j.last[origin], number)
	}
}

// splitID reads an id <origin>-<number>. An origin is one load of the module, and
// numbers its events 1, 2, 3 and so on. (With K or E in the module's events, a
// view's letter follows.)
func splitID(id string) (origin string, number uint64, ok bool) {
	part := strings.Split(id, "-")
	if len(part) < 2 {
		return "", 0, false
	}
	number, err := strconv.ParseUint(part[1], 10, 64)
	return part[0], number, err == nil
}

// missing is how many events of the same origin should have come between the
// last one and this. It is 0 for an origin that is new to us, and for an event
// that comes late. It only tells something where the queue gets all events.
func (j *journal) missing(id string) uint64 {
	origin, number, ok := splitID(id)
	last, known := j.last[origin]
	if !ok || !known || number <= last {
		return 0
	}
	return number - last - 1
}

// add writes one line in one call. It survives our crash; where it must survive
// the machine's too, call file.Sync before the acknowledgement.
func (j *journal) add(e *event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return err
	}
	j.remember(e.ID)
	return nil
}
