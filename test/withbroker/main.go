// SPDX-License-Identifier: BSD-3-Clause

// Withbroker starts a private RabbitMQ, runs a command, and ends the broker.
//
//	go run ./test/withbroker COMMAND [ARGUMENT …]
//
// The command finds the broker's port in $KEA_BROKER_PORT. One queue, of the
// exchange amq.fanout, takes every message and keeps the last thousand, so that
// a module that publishes there sees each event confirmed. That no message has
// come is a failure: then the command did not test what it was meant to.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

const queue = "events"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: withbroker COMMAND [ARGUMENT …]")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "withbroker:", err)
	}
	os.Exit(code)
}

func run(name string, args ...string) (code int, err error) {
	broker, err := servers.NewBroker()
	if err != nil {
		return 1, err
	}
	defer broker.Close()
	if err := broker.Start(); err != nil {
		return 1, err
	}
	err = broker.Bind(queue, "amq.fanout", "", lib.Table{"x-max-length": int32(1000), "x-overflow": "drop-head"})
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "KEA_BROKER_PORT="+strconv.Itoa(broker.Port))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return 1, err
	}
	waiting, err := waiting(broker)
	if err != nil {
		return 1, err
	}
	if waiting == 0 {
		return 1, fmt.Errorf("the broker has had no message")
	}
	return 0, nil
}

// waiting is how many messages the queue holds.
func waiting(b *servers.Broker) (int, error) {
	conn, err := b.Dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return q.Messages, err
}
