// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// forged is what a broker may write to look like somebody else in the log.
const forged = "disk\r\n1:M 01 Jan 2026 00:00:00.000 # BUG REPORT START\n\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eabc \xff\xfe end"

// scripted starts a server whose broker is a script.
func scripted(t *testing.T, act func(*servers.Peer)) *rig {
	t.Helper()
	script, err := servers.NewScript(act)
	must(t, err)
	t.Cleanup(script.Close)
	r := start(t, options{events: "$", silent: true, port: script.Port, config: []string{prefix + "reconnect_delay_max 100"}})
	return r
}

// ourLines are the lines of the log that the module wrote, or somebody through it.
func (r *rig) ourLines() (lines []string) {
	r.t.Helper()
	for _, line := range strings.Split(r.Log(), "\n") {
		if strings.Contains(line, "key_evt_amqp") {
			lines = append(lines, line)
		}
	}
	return lines
}

// clean checks that nothing in a text does more than show.
func clean(t *testing.T, where, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8: %q", where, text)
	}
	for _, r := range text {
		if r != '\n' && r != '\r' && !unicode.IsPrint(r) {
			t.Errorf("%s has %q: %q", where, r, text)
			return
		}
	}
}

// TestWhatABrokerSaysIsOneCleanLine: reasons to block and to close, with all that
// could forge a line or move a terminal's cursor.
func TestWhatABrokerSaysIsOneCleanLine(t *testing.T) {
	for _, test := range []struct {
		name string
		act  func(p *servers.Peer)
		says string
	}{
		{"blocked", func(p *servers.Peer) {
			_ = p.Send(0, servers.ConnectionBlocked, servers.ShortText(forged))
		}, "blocks publishing"},
		{"connection closed", func(p *servers.Peer) {
			_ = p.Send(0, servers.ConnectionClose, "\x01\x40"+servers.ShortText(forged)+"\x00\x00\x00\x00")
		}, "not delivering, retrying"},
		{"channel closed", func(p *servers.Peer) {
			_ = p.Send(1, servers.ChannelClose, "\x01\x96"+servers.ShortText(forged)+"\x00\x00\x00\x00")
		}, "not delivering, retrying"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := scripted(t, test.act)
			r.do("SET", "k", "v")
			r.until("last_error", contains("disk"))
			eventually(t, func() error {
				for _, line := range r.ourLines() {
					if strings.Contains(line, test.says) && strings.Contains(line, "disk 1:M") && strings.Contains(line, `\x1b[2J`) {
						return nil
					}
				}
				return fmt.Errorf("the log does not say %q", test.says)
			})
			clean(t, "the log", r.Log())
			clean(t, "INFO", r.do("INFO", "key_evt_amqp").(string))
			if strings.Contains(r.Log(), "\n1:M 01 Jan 2026") {
				t.Error("the broker has written a line of its own into the log")
			}
			r.crashed = true // says "BUG REPORT", within a line
		})
	}
}

// TestAnAlarmThatComesAndGoesFillsNoLog: hundreds of alarms, and a bounded number
// of lines. That the next minute tells how many were left out is tested beside the
// logger.
func TestAnAlarmThatComesAndGoesFillsNoLog(t *testing.T) {
	alarms := make(chan int, 100)
	r := scripted(t, func(p *servers.Peer) {
		n := 0
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); n++ {
			if p.Send(0, servers.ConnectionBlocked, servers.ShortText(fmt.Sprint("memory ", n))) != nil ||
				p.Send(0, servers.ConnectionUnblocked, "") != nil {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		alarms <- n
	})
	r.sets("k", 10)
	if n := <-alarms; n < 200 {
		t.Errorf("only %d alarms: the test tries nothing", n)
	}
	r.until("events_confirmed", is("10"))
	r.balanced(0, 0)
	lines := 0
	for _, line := range r.ourLines() {
		if strings.Contains(line, "blocks publishing") || strings.Contains(line, "takes messages again") {
			lines++
		}
	}
	if lines == 0 || lines > 20 {
		t.Errorf("%d lines about alarms, want at most 20", lines)
	}
}
