// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFilesAreRegularAndBounded(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, size int) {
		t.Helper()
		if err := os.WriteFile(at(name), bytes.Repeat([]byte("x"), size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", 0)
	write("just", 1000)
	write("large", 1001)
	for _, err := range []error{syscall.Mkfifo(at("fifo"), 0o600), os.Symlink("fifo", at("link to fifo")), os.Symlink("just", at("link")),
		os.Symlink("loop", at("loop")), os.Mkdir(at("dir"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path  string
		size  int
		wrong string
	}{
		{at("empty"), 0, ""},
		{at("just"), 1000, ""},
		{at("link"), 1000, ""},
		{at("large"), 0, "has more than 1000 bytes"},
		{at("fifo"), 0, "is not a regular file"},
		{at("link to fifo"), 0, "is not a regular file"},
		{at("dir"), 0, "is not a regular file"},
		{at("loop"), 0, "too many levels of symbolic links"},
		{at("none"), 0, "no such file"},
		{at("just") + "/x", 0, "not a directory"},
		{"", 0, "no such file"},
		{"a\x00b", 0, "invalid argument"},
		{"/dev/zero", 0, "is not a regular file"},
		{"/dev/null", 0, "is not a regular file"},
		{"/proc/self/status", -1, ""},                 // has no size
		{"/proc/kallsyms", 0, "more than 1000 bytes"}, // this has none either
	} {
		limit := 1000
		if test.size < 0 {
			limit = 1 << 20
		}
		text, err := readFile(test.path, limit)
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) || text != nil {
				t.Errorf("%q: got %d bytes, error %v; want %q", test.path, len(text), err, test.wrong)
			}
		case err != nil || test.size >= 0 && len(text) != test.size || test.size < 0 && !bytes.Contains(text, []byte("VmPeak")):
			t.Errorf("%q: got %d bytes, error %v", test.path, len(text), err)
		}
	}
}

func TestThePasswordIsTheFirstLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	long := strings.Repeat("x", maxPassword)
	for _, test := range []struct{ text, want string }{
		{"secret", "secret"}, {"secret\nmore\n", "secret"}, {"secret\r\n", "secret"}, {"", ""}, {"\nno", ""}, {long + "\n", long},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := defaults()
		if err := s.set(find("password_file"), file); err != nil {
			t.Fatal(err)
		}
		if got, err := s.password(); err != nil || got != test.want {
			t.Errorf("%.30q: got %.30q, error %v", test.text, got, err)
		}
	}
	if err := os.WriteFile(file, []byte(long+"x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := defaults().set(find("password_file"), file); err == nil || strings.Contains(err.Error(), "xxx") {
		t.Errorf("a line that is too long: error %.200v", err)
	}
}
