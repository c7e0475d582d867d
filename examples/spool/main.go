// SPDX-License-Identifier: BSD-3-Clause

// Spool lists the events of spool files, as key_evt_amqp.fallback_peek lists those
// that wait in a server: id, time, database, event, key, with a tab between two.
//
//	go run ./examples/spool /var/lib/redis/key_evt_amqp.*.spool
//
// What is not plain text is quoted as redis-cli takes it. Of a damaged file it
// lists what the module would take in; its exit status is then 1. It changes no
// file. What it says about a file goes to standard error.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("spool FILE…")
	}
	failed := false
	for _, path := range os.Args[1:] {
		n, err := listFile(os.Stdout, path)
		about := "spool: " + string(quote([]byte(path)))
		switch {
		case err == nil:
			log.Printf("%s: %s%s", about, counted(n), server(path))
		case n > 0:
			log.Printf("%s: %v; listed before that: %s%s", about, err, counted(n), server(path))
		default:
			log.Printf("%s: %v", about, err)
		}
		failed = failed || err != nil
	}
	if failed {
		os.Exit(1)
	}
}

func counted(n uint64) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}

// open opens a regular file; it does not wait for whoever writes into a pipe.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is said already
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.New("not a regular file")
	}
	return f, nil
}

func listFile(out io.Writer, path string) (uint64, error) {
	f, err := open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return list(out, f)
}

// list writes a line for each event of a spool file, and returns how many.
func list(out io.Writer, in io.Reader) (uint64, error) {
	lines := bufio.NewWriter(out)
	events := fallback.NewSpoolReader(in)
	for {
		r, err := events.Next()
		if err == io.EOF {
			return events.Events(), lines.Flush()
		}
		if err != nil {
			return events.Events(), errors.Join(err, lines.Flush())
		}
		if _, err := lines.Write(line(&r)); err != nil {
			return events.Events(), err
		}
	}
}

func line(r *fallback.Record) []byte {
	b := append(r.AppendID(nil), '\t')
	b = time.UnixMilli(r.TimeMillis).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	for _, part := range [][]byte{r.DB, r.Event, r.Key} {
		b = append(append(b, '\t'), quote(part)...)
	}
	return append(b, '\n')
}

// server says whose a file is, from the owner file beside it. Without one it says
// what the name tells.
func server(path string) string {
	name, ok := fallback.ParseSpoolName(filepath.Base(path))
	if !ok {
		return ""
	}
	if name.ID == "" {
		return fmt.Sprintf(", of the server at port %d", name.Number)
	}
	text := ", of server " + name.ID
	f, err := open(filepath.Join(filepath.Dir(path), fallback.OwnerName(name.ID)))
	if err != nil {
		return text
	}
	defer f.Close()
	o, err := fallback.ReadOwner(f)
	if err != nil {
		return text
	}
	for _, fact := range []struct{ name, text string }{
		{"port", o.Port}, {"tls-port", o.TLSPort}, {"unixsocket", o.UnixSocket},
		{"config file", o.ConfigFile}, {"dataset", o.Dataset}, {"node", o.Node},
	} {
		if fact.text != "" {
			text += ", " + fact.name + " " + string(quote([]byte(fact.text)))
		}
	}
	return text
}
