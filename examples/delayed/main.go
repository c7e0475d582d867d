// SPDX-License-Identifier: BSD-3-Clause

// Delayed makes jobs that are due later, and does them: a key with a TTL is a
// message with a delay.
//
//	go run ./examples/delayed produce -after 1m '{"to":"ada"}'
//	go run ./examples/delayed work -queue jobs -out jobs.jsonl
//
// The producer sets a key, job:<random>, that expires when the job is due. The
// module sends what the key held, and the worker gets exactly those bytes:
//
//	key_evt_amqp.events x
//	key_evt_amqp.key_mask '^job:'
//	key_evt_amqp.format payload
//	key_evt_amqp.value old
//	key_evt_amqp.expire_on_time yes
//
// Redis 7.2 and newer, or Valkey: Redis 7.0 has no old values. DEL of the key takes a
// job back as long as it is not due. With appendonly yes a job survives a restart
// of Redis, and with outbox yes the message does, too.
//
// Jobs come at least once. The worker writes a job and the message's id in one step,
// acknowledges behind it, and drops what it has done already. consumer-go says
// what more a consumer may want: it comes back by itself, and says when events are
// missing.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		log.Fatal("delayed produce … or delayed work …")
	}
	run := map[string]func(context.Context, []string) error{"produce": produce, "work": work}[os.Args[1]]
	if run == nil {
		log.Fatalf("%q is neither produce nor work", os.Args[1])
	}
	if err := run(ctx, os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

// produce makes a job of each argument.
func produce(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("produce", flag.ExitOnError)
	server := flags.String("redis", "127.0.0.1:6379", "Redis")
	after := flags.Duration("after", time.Minute, "when the jobs are due")
	_ = flags.Parse(args) // ends the program itself
	if *after < time.Millisecond {
		return errors.New("-after: a job is due in a millisecond at the earliest")
	}
	client := redis.NewClient(&redis.Options{Addr: *server})
	defer client.Close()
	for _, job := range flags.Args() {
		key := "job:" + rand.Text()
		if err := client.Set(ctx, key, job, *after).Err(); err != nil {
			return err
		}
		fmt.Println(key)
	}
	return nil
}

// done is a line of the worker's file.
type done struct {
	ID  string `json:"id"`
	Key string `json:"key"`
	Job []byte `json:"job"`
}

// work does jobs until it is told to end: here it writes each into a file.
func work(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("work", flag.ExitOnError)
	queue := flags.String("queue", "jobs", "queue, made if it is not there")
	exchange := flags.String("exchange", "amq.direct", "the module's exchange_name")
	routingKey := flags.String("routing-key", "redis_keyspace_events", "the module's routing_key")
	out := flags.String("out", "jobs.jsonl", "file of the jobs done, one a line")
	_ = flags.Parse(args)
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://guest:guest@127.0.0.1:5672/"
	}
	known, err := read(*out)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(*out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()

	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(20, 0, false); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(*queue, true, false, false, false, nil); err != nil {
		return err
	}
	if err := ch.QueueBind(*queue, *routingKey, *exchange, false, nil); err != nil {
		return err
	}
	jobs, err := ch.ConsumeWithContext(ctx, *queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	log.Printf("waiting for events in %s", *queue)
	for d := range jobs {
		if ctx.Err() != nil {
			break
		}
		if !known[d.MessageId] && d.Type == "expired" {
			key, _ := d.Headers["key"].(string)
			line, _ := json.Marshal(done{d.MessageId, key, d.Body}) // strings and bytes: it can't fail
			if _, err := file.Write(append(line, '\n')); err != nil {
				return err // not acknowledged: it comes again
			}
			if err := file.Sync(); err != nil {
				return err
			}
			known[d.MessageId] = true
		}
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return errors.New("the broker ended the subscription")
	}
	return nil
}

// read knows what was done before. A line that was cut by a crash was not
// acknowledged, and its job comes again.
func read(path string) (map[string]bool, error) {
	known := map[string]bool{}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		var one done
		if json.Unmarshal(lines.Bytes(), &one) == nil {
			known[one.ID] = true
		}
	}
	return known, lines.Err()
}
