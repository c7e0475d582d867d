// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// key is the i-th key, as redis-benchmark makes them, or longer, or shorter.
func key(i, size int) string {
	if size <= 0 {
		size = 16
	}
	if size < 16 {
		return fmt.Sprintf("%0*d", size, i)
	}
	return fmt.Sprintf("key:%0*d", size-4, i)
}

// client sends SETs as fast as the server takes them, or at a rate.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dialRedis(r *servers.Redis) (*client, error) {
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

func appendSet(b []byte, key string) []byte {
	b = append(b, "*3\r\n$3\r\nSET\r\n$"...)
	b = strconv.AppendInt(b, int64(len(key)), 10)
	b = append(b, "\r\n"...)
	b = append(b, key...)
	return append(b, "\r\n$3\r\nxxx\r\n"...)
}

// exchange sends encoded commands and reads one line for each.
func (c *client) exchange(commands []byte, replies int) error {
	if _, err := c.Write(commands); err != nil {
		return err
	}
	for range replies {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line[0] != '+' {
			return fmt.Errorf("redis answers %q", line)
		}
	}
	return nil
}

// sets makes n SETs of distinct keys, each keys of them again from the start,
// in pipelines of depth; at so many a second, 0: as fast as they are taken.
func sets(r *servers.Redis, n, keys, size, depth int, rate float64) error {
	c, err := dialRedis(r)
	if err != nil {
		return err
	}
	defer c.Close()
	// Encoded before, so that this process takes little of the machine.
	var pipelines [][]byte
	for from := 0; from < min(n, keys); from += depth {
		var b []byte
		for i := from; i < min(from+depth, n, keys); i++ {
			b = appendSet(b, key(i, size))
		}
		pipelines = append(pipelines, b)
	}
	begun := time.Now()
	for sent, i := 0, 0; sent < n; i++ {
		b := pipelines[i%len(pipelines)]
		if rate > 0 {
			sleepUntil(begun.Add(time.Duration(float64(sent) / rate * float64(time.Second))))
		}
		k := bytes.Count(b, []byte("SET\r\n"))
		if err := c.exchange(b, k); err != nil {
			return err
		}
		sent += k
	}
	return nil
}

func sleepUntil(t time.Time) {
	if d := time.Until(t); d > 0 {
		time.Sleep(d)
	}
}

// benchmarked is redis-benchmark's word.
type benchmarked struct {
	perSecond, p50, p99, worst float64 // worst and percentiles in milliseconds
}

// redisBenchmark makes n SETs of 100,000 keys, 4 clients, pipelines of 50.
func redisBenchmark(r *servers.Redis, n int) (b benchmarked, err error) {
	out, err := exec.Command("redis-benchmark", "-p", strconv.Itoa(r.Port), "-P", "50", "-c", "4",
		"-r", "100000", "-t", "set", "-n", strconv.Itoa(n), "--csv").Output()
	if err != nil {
		return b, fmt.Errorf("redis-benchmark: %w", err)
	}
	// "test","rps","avg","min","p50","p95","p99","max"
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil && err != io.EOF || len(rows) != 2 || len(rows[1]) != 8 {
		return b, fmt.Errorf("redis-benchmark wrote %q: %v", out, err)
	}
	var f [8]float64
	for i := range f {
		f[i], _ = strconv.ParseFloat(rows[1][i], 64)
	}
	return benchmarked{perSecond: f[1], p50: f[4], p99: f[6], worst: f[7]}, nil
}
