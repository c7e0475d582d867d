// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func TestOnlyTextIsNotQuoted(t *testing.T) {
	for text, want := range map[string]string{
		"":             `""`,
		"key:1":        `key:1`,
		"{tag}.größe":  `{tag}.größe`,
		"two words":    `"two words"`,
		"a\x00b\n":     `"a\x00b\n"`,
		"\"\\\r\t\a\b": `"\"\\\r\t\a\b"`,
		"\xff\xfe":     `"\xff\xfe"`,
		"ü\xff":        `"ü\xff"`,
		"\x1b[2J":      `"\x1b[2J"`,
		"\u202eab":     `"\xe2\x80\xaeab"`, // turns the line around
		"\u00a0":       `"\xc2\xa0"`,       // looks like a space
		"\ufffd":       `"\xef\xbf\xbd"`,
	} {
		if got := string(quote([]byte(text))); got != want {
			t.Errorf("quote(%q) is %s, want %s", text, got, want)
		}
	}
}

// spoolFile is a file with one event for each key.
func spoolFile(keys ...string) []byte {
	b := []byte("key_evt_amqp 1\n\n")
	for i, key := range keys {
		r := fallback.Record{Origin: 0xabc, Seq: uint64(i + 1), TimeMillis: 1700000000123, DB: []byte("15"), Event: []byte("set"), Key: []byte(key)}
		if i%2 == 1 {
			r.Now = fallback.Content{Type: fallback.String, Bytes: []byte("value")}
		}
		record := r.Encode()
		sum := fnv.New64a()
		sum.Write(record)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
		b = append(binary.LittleEndian.AppendUint64(b, sum.Sum64()), record...)
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xff, 0xff, 0xff, 0xff), uint64(len(keys)))
}

const twoLines = "0000000000000abc-1\t2023-11-14T22:13:20.123Z\t15\tset\tk1\n" +
	"0000000000000abc-2\t2023-11-14T22:13:20.123Z\t15\tset\t\"a b\"\n"

func TestEventsAreListedInWords(t *testing.T) {
	file := spoolFile("k1", "a b")
	path := filepath.Join(t.TempDir(), "key_evt_amqp.0123456789abcdef.1.spool")
	if err := os.WriteFile(path, file, 0o400); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	n, err := listFile(&out, path)
	if err != nil || n != 2 || out.String() != twoLines {
		t.Errorf("got %d events, error %v:\n%s", n, err, &out)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
		t.Errorf("the file has changed: error %v", err)
	}
	if got, want := server(path), ", of server 0123456789abcdef"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	owner := filepath.Join(filepath.Dir(path), "key_evt_amqp.0123456789abcdef.owner")
	if err := os.WriteFile(owner, []byte("key_evt_amqp owner 1\nport 6379\nunixsocket \ndataset dump.rdb appendonly\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := server(path), `, of server 0123456789abcdef, port 6379, dataset "dump.rdb appendonly"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := server("key_evt_amqp.6379.spool"), ", of the server at port 6379"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := server("dump.rdb"); got != "" {
		t.Errorf("got %q of a dump", got)
	}
}

func TestADamagedFileIsListedUpToTheDamage(t *testing.T) {
	file := spoolFile("k1", "a b", "k3")
	file[len(file)-14] ^= 1
	var out bytes.Buffer
	n, err := list(&out, bytes.NewReader(file))
	var damage *fallback.SpoolDamage
	if !errors.As(err, &damage) || n != 2 || out.String() != twoLines {
		t.Errorf("got %d events, error %v:\n%s", n, err, &out)
	}
	if err == nil || !strings.Contains(err.Error(), "event 3 has the check sum") {
		t.Errorf("the error is %v", err)
	}
}

func TestWhatIsNotAFileIsNotRead(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe: "not a regular file", dir: "not a regular file",
		filepath.Join(dir, "none"): "no such file or directory", os.DevNull: "not a regular file",
	} {
		if _, err := listFile(&bytes.Buffer{}, path); err == nil || err.Error() != want {
			t.Errorf("%s: got the error %v, want %s", path, err, want)
		}
	}
}
