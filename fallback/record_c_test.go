// SPDX-License-Identifier: BSD-3-Clause

// record_c_test.go holds c/record.c against this package: what each builds, and
// what each takes for sound, must be the same. It compiles c/record.c afresh and
// talks to it over pipes: no cgo, and the sanitizers come along.

package fallback

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// driver is a running driver of c/test, one request at a time.
type driver struct {
	mu  sync.Mutex
	dir string // where it runs
	in  io.WriteCloser
	out *bufio.Reader
}

func startDriver(tb testing.TB) *driver {
	tb.Helper()
	return compileAndStart(tb, []string{"test/record_driver.c", "record.c"}, "record.h")
}

// compileAndStart makes a driver of files of c/, which include others.
func compileAndStart(tb testing.TB, files []string, included ...string) *driver {
	tb.Helper()
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	program := filepath.Join(tb.TempDir(), "driver")
	args := []string{"@../c/flags", "-O1", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", program}
	for i, name := range append(files, included...) {
		path := filepath.Join("..", "c", name)
		// go test takes a result from its cache unless it knows what was read.
		if _, err := os.ReadFile(path); err != nil {
			tb.Fatal(err)
		}
		if i < len(files) {
			args = append(args, path)
		}
	}
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %s: %v\n%s", cc, strings.Join(args, " "), err, text)
	}
	cmd := exec.Command(program)
	cmd.Dir = tb.TempDir()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("C driver: %v\n%s", err, &stderr)
		}
	})
	return &driver{dir: cmd.Dir, in: in, out: bufio.NewReader(out)}
}

// ask sends a request and reads an answer of n bytes; n < 0: behind its length.
func (d *driver) ask(tb testing.TB, request []byte, n int) []byte {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.send(tb, request)
	return d.get(tb, n)
}

// send and get are ask in pieces, for whoever holds mu.
func (d *driver) send(tb testing.TB, request []byte) {
	tb.Helper()
	if _, err := d.in.Write(request); err != nil {
		tb.Fatalf("C driver: %v, at %q", err, request)
	}
}

func (d *driver) get(tb testing.TB, n int) []byte {
	tb.Helper()
	var err error
	if n < 0 {
		var size [4]byte
		_, err = io.ReadFull(d.out, size[:])
		n = int(binary.LittleEndian.Uint32(size[:]))
	}
	answer := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(d.out, answer)
	}
	if err != nil {
		tb.Fatalf("C driver: %v in place of an answer", err)
	}
	return answer
}

func (d *driver) valid(tb testing.TB, b []byte) bool {
	tb.Helper()
	return d.ask(tb, AppendElement([]byte{'v'}, string(b)), 1)[0] == '1'
}

func (d *driver) build(tb testing.TB, r *Record, db uint32) []byte {
	tb.Helper()
	b := []byte{'b'}
	for _, n := range []uint64{r.Origin, r.Seq, uint64(r.TimeMillis), uint64(r.DueMillis)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, db)
	b = AppendElement(AppendElement(b, string(r.Event)), string(r.Key))
	for _, c := range []*Content{&r.Now, &r.Old} {
		b = append(b, byte(c.Type), 0)
		if c.LeftOut {
			b[len(b)-1] = 1
		}
		b = binary.LittleEndian.AppendUint64(b, c.Size)
		b = AppendElement(b, string(c.Bytes))
	}
	return d.ask(tb, b, -1)
}

func randomContent(rng *rand.Rand) (c Content) {
	c.Type = Type(rng.IntN(int(Stream) + 1))
	c.LeftOut = c.Type == Module || c.Type != None && rng.IntN(4) == 0
	if c.LeftOut && rng.IntN(2) == 0 {
		c.Size = rng.Uint64()
	}
	if c.LeftOut || c.Type == None || rng.IntN(6) == 0 {
		return c
	}
	element := func() string { return strings.Repeat("\xe9", rng.IntN(20)) }
	switch c.Type {
	case String:
		c.Bytes = []byte(element())
		return c
	case Stream:
		c.Bytes = make([]byte, 16)
	}
	for n := 2 * rng.IntN(5); n > 0; n-- {
		if c.Type == SortedSet {
			c.Bytes = binary.LittleEndian.AppendUint64(c.Bytes, rng.Uint64())
		}
		c.Bytes = AppendElement(c.Bytes, element())
	}
	return c
}

func randomRecord(rng *rand.Rand, db string) *Record {
	r := &Record{Origin: rng.Uint64(), Seq: rng.Uint64(), TimeMillis: rng.Int64(), DB: []byte(db),
		Event: []byte("del"), Key: []byte(strings.Repeat("k\n", rng.IntN(9)))}
	if rng.IntN(3) > 0 {
		r.Now, r.Old = randomContent(rng), randomContent(rng)
		r.DueMillis = rng.Int64N(3)
	}
	return r
}

func TestCBuildsWhatGoDoes(t *testing.T) {
	d := startDriver(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		r := randomRecord(rng, "2147483647")
		got, want := d.build(t, r, 2147483647), r.Encode()
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %+v: C builds\n%q, Go\n%q", seed, r, got, want)
		}
		if _, err := Decode(got); err != nil {
			t.Fatalf("seed %d: %+v: Go does not read %q", seed, r, got)
		}
	}
}

// Sound records, and what a few wrong bytes or a cut make of them.
func TestCAndGoAgreeOnWhatIsSound(t *testing.T) {
	d := startDriver(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	sound := 0
	for range 20000 {
		b := randomRecord(rng, "0").Encode()
		for n := rng.IntN(3); n > 0; n-- {
			// Small numbers where lengths and kinds are.
			b[rng.IntN(len(b))] = byte(rng.IntN(9))
		}
		if rng.IntN(4) == 0 {
			b = b[:rng.IntN(len(b)+1)]
		}
		_, err := Decode(b)
		if got := d.valid(t, b); got != (err == nil) {
			t.Fatalf("seed %d: C says %v, Go %v: %q", seed, got, err, b)
		}
		if err == nil {
			sound++
		}
	}
	if sound < 2000 || sound > 18000 {
		t.Errorf("%d of 20000 are sound: the test proves little", sound)
	}
}

func FuzzCAndGo(f *testing.F) {
	d := startDriver(f)
	f.Add(encode(1, 2, 3, "0", "expired", "key"))
	f.Add(rich().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := Decode(b)
		if got := d.valid(t, b); got != (err == nil) {
			t.Errorf("C says %v, Go %v: %q", got, err, b)
		}
	})
}
