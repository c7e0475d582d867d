// SPDX-License-Identifier: BSD-3-Clause

// Run shows the module at work: it starts a private RabbitMQ and a private
// Redis with the module, runs a few commands and prints each message beside the
// command that caused it. On a terminal it then follows whatever is done with
// redis-cli, until Ctrl-C; else it ends: 0 when every expected message came.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sys/unix"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// step is one command of the script and what it makes: events of keys.
type step struct {
	command []any
	events  []string // bodies, in order
	note    string
}

var script = []step{
	{[]any{"SET", "greeting", "hello"}, []string{"0\nset\ngreeting"}, ""},
	{[]any{"HSET", "user:1", "name", "Ada"}, []string{"0\nhset\nuser:1"}, ""},
	{[]any{"SET", "session:7", "x"}, []string{"0\nset\nsession:7"}, ""},
	{[]any{"PEXPIRE", "session:7", "300"}, []string{"0\nexpire\nsession:7"}, ""},
	{nil, []string{"0\nexpired\nsession:7"}, "(300 ms later)"},
	{[]any{"DEL", "greeting"}, []string{"0\ndel\ngreeting"}, ""},
	{[]any{"key_evt_amqp.snapshot"}, []string{"0\nsnapshot\nuser:1", "0\nsnapshot_end\n" + answer}, ""},
}

// answer stands for what the command has answered.
const answer = "(the answer)"

func main() {
	module := flag.String("module", "build/libredis_keyspace_amqp.so", "the built module")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *module); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, module string) error {
	path, err := filepath.Abs(module)
	if err != nil {
		return err
	}
	broker, err := servers.NewBroker()
	if err != nil {
		return err
	}
	defer broker.Close()
	fmt.Printf("Starting RabbitMQ on 127.0.0.1:%d (some seconds) ...\n", broker.Port)
	if err := broker.Start(); err != nil {
		return err
	}
	if err := broker.Bind("events", "amq.direct", "redis_keyspace_events", nil); err != nil {
		return err
	}
	redis, err := servers.NewRedis("key_evt_amqp.value new", "key_evt_amqp.expire_on_time yes", fmt.Sprintf(
		"loadmodule %s A 127.0.0.1 %d guest guest 20 amq.direct redis_keyspace_events 2 10000000 ALL", path, broker.Port))
	if err != nil {
		return err
	}
	defer redis.Close()
	fmt.Printf("Starting Redis with the module on 127.0.0.1:%d ...\n", redis.Port)
	if err := redis.Start(); err != nil {
		return err
	}
	if err := redis.Alive(); err != nil {
		return err
	}
	conn, err := broker.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	messages, err := ch.Consume("events", "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	if err := redis.Do(ctx, "CONFIG", "SET", "key_evt_amqp.value", "both").Err(); err != nil {
		fmt.Println("\nRedis 7.0 shows no module what a key held that has gone; a newer Redis, or Valkey, would show it below.")
	}
	fmt.Printf("\n%-30s   %s\n", "command", "message: database, event, key, and headers")
	if err := play(ctx, redis, messages); err != nil {
		return err
	}
	if !terminal(os.Stdin) || !terminal(os.Stdout) {
		fmt.Println("\nEvery expected message came.")
		return nil
	}
	fmt.Printf("\nNow you: redis-cli -p %d       (Ctrl-C here ends everything)\n\n", redis.Port)
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nStopping ...")
			return nil
		case m, ok := <-messages:
			if !ok {
				return fmt.Errorf("RabbitMQ is gone")
			}
			show("", m)
		}
	}
}

func play(ctx context.Context, redis *servers.Redis, messages <-chan lib.Delivery) error {
	for _, s := range script {
		left, answered := s.note, ""
		if s.command != nil {
			left = strings.TrimSuffix(fmt.Sprintln(s.command...), "\n")
			got, err := redis.Do(ctx, s.command...).Result()
			if err != nil {
				return fmt.Errorf("%s: %w", left, err)
			}
			answered = fmt.Sprint(got)
		}
		for _, want := range s.events {
			want = strings.Replace(want, answer, answered, 1)
			select {
			case m, ok := <-messages:
				if !ok || string(m.Body) != want {
					return fmt.Errorf("%s: got %q, expected %q", left, m.Body, want)
				}
				show(left, m)
			case <-time.After(15 * time.Second):
				return fmt.Errorf("%s: no message %q within 15 s\n%s", left, want, redis.LogTail(5))
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func show(left string, m lib.Delivery) {
	body := strings.SplitN(string(m.Body), "\n", 3)
	for _, name := range []string{"value", "old"} {
		switch value := m.Headers[name].(type) {
		case []byte:
			body = append(body, fmt.Sprintf("%s %s", name, value))
		case string:
			body = append(body, name+" "+value)
		}
	}
	if text, ok := m.Headers["due"].(string); ok {
		if due, err := time.Parse(time.RFC3339Nano, text); err == nil {
			body = append(body, fmt.Sprintf("here %d ms after it was due", time.Since(due).Milliseconds()))
		}
	}
	fmt.Printf("%-30s → %s\n", left, strings.Join(body, "  "))
}

// terminal reports whether a file is one.
func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
