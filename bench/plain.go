// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// order is what a plain publisher is to do. It publishes the messages that the
// module would: same body, same properties.
type order struct {
	URI    string
	Key    string // routing key, on amq.direct
	Mode   uint8
	Events int
	Size   int     // of a key
	Rate   float64 // a second; 0: as fast as possible
	Burst  int     // events at a time, with a rate
	Window int
}

// work is what it reports.
type work struct {
	Seconds float64 // first publish to last confirm
	CPU     float64 // seconds of all its threads, in that time
}

// plainFlag makes this program a plain publisher: a process of its own, so that
// its CPU time is nobody else's.
const plainFlag = "plain-publisher"

func startPlain(o order) (func() (work, error), *exec.Cmd, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, plainFlag, string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return func() (w work, err error) {
		decodeErr := json.NewDecoder(out).Decode(&w)
		if err := cmd.Wait(); err != nil {
			return w, fmt.Errorf("plain publisher: %w", err)
		}
		return w, decodeErr
	}, cmd, nil
}

func runPlain(o order) (work, error) {
	wait, _, err := startPlain(o)
	if err != nil {
		return work{}, err
	}
	return wait()
}

// plainMain is the plain publisher: amqp091-go as its documentation shows it,
// with confirms, one goroutine, a window.
func plainMain(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	conn, err := lib.Dial(o.URI)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	confirms := ch.NotifyPublish(make(chan lib.Confirmation, o.Window))
	if err := ch.Confirm(false); err != nil {
		return err
	}
	// Made before, as the module finds its records made; and used again, so
	// that a long run does not take much memory.
	bodies := make([][]byte, min(o.Events, 100000))
	ids := make([]string, len(bodies))
	for i := range bodies {
		bodies[i] = []byte("0\nset\n" + key(i, o.Size))
		ids[i] = fmt.Sprintf("0123456789abcdef-%d", i)
	}
	begun, cpu := time.Now(), ownUsage()
	confirmed := 0
	take := func(c lib.Confirmation, ok bool) error {
		if !ok || !c.Ack {
			return fmt.Errorf("no confirm for message %d", confirmed)
		}
		confirmed++
		return nil
	}
	for i := range o.Events {
		if o.Rate > 0 && i%o.Burst == 0 {
			sleepUntil(begun.Add(time.Duration(float64(i) / o.Rate * float64(time.Second))))
		}
		for i-confirmed >= o.Window || len(confirms) > 0 {
			c, ok := <-confirms
			if err := take(c, ok); err != nil {
				return err
			}
		}
		if err := ch.Publish("amq.direct", o.Key, true, false, lib.Publishing{
			MessageId: ids[i%len(ids)], Timestamp: time.Now(), Type: "set", AppId: "key_evt_amqp",
			ContentType: "text/plain", DeliveryMode: o.Mode, Body: bodies[i%len(bodies)],
		}); err != nil {
			return err
		}
	}
	for confirmed < o.Events {
		c, ok := <-confirms
		if err := take(c, ok); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(work{time.Since(begun).Seconds(), ownUsage() - cpu})
}
