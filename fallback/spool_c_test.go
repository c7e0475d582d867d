// SPDX-License-Identifier: BSD-3-Clause

// spool_c_test.go holds c/spool.c, c/spooldir.c and c/owner.c against this
// package: what one writes the other reads, and of damaged files both read the
// same events.

package fallback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func startSpoolDriver(tb testing.TB) *driver {
	tb.Helper()
	return compileAndStart(tb, []string{"test/spool_driver.c", "spool.c", "owner.c", "queue.c", "record.c"},
		"spooldir.c", "spooldir.h", "spool.h", "owner.h", "queue.h", "record.h", "fault.h")
}

// One driver for all: to compile it takes longer than they do.
func TestSpoolOfCAndGo(t *testing.T) {
	d := startSpoolDriver(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Run("what C writes", func(t *testing.T) { spoolAsCWrites(t, d, rng) })
	t.Run("one wrong byte", func(t *testing.T) { spoolWithAWrongByte(t, d, rng) })
	t.Run("any damage", func(t *testing.T) { spoolWithAnyDamage(t, d, rng) })
	t.Run("names", func(t *testing.T) { spoolNames(t, d, rng) })
	t.Run("owners", func(t *testing.T) { spoolOwners(t, d) })
}

// C's enum kea_spool_state.
const (
	cWhole   = 1
	cDamaged = 2
)

const spoolTestFile = "test.spool"

// writeSpool lets C write a file.
func (d *driver) writeSpool(tb testing.TB, records [][]byte) []byte {
	tb.Helper()
	path := filepath.Join(d.dir, spoolTestFile)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	b := AppendElement([]byte{'w'}, spoolTestFile)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(records)))
	for _, r := range records {
		b = AppendElement(b, string(r))
	}
	if state := d.ask(tb, b, 1)[0]; state != 2 {
		tb.Fatalf("C wrote no file: %d", state)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return file
}

// readSpool lets C read a file.
func (d *driver) readSpool(tb testing.TB, file []byte) (state byte, records [][]byte) {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.WriteFile(filepath.Join(d.dir, spoolTestFile), file, 0o600); err != nil {
		tb.Fatal(err)
	}
	d.send(tb, AppendElement([]byte{'r'}, spoolTestFile))
	state = d.get(tb, 1)[0]
	for n := binary.LittleEndian.Uint32(d.get(tb, 4)); n > 0; n-- {
		records = append(records, d.get(tb, -1))
	}
	return state, records
}

// sameSpool reads a file with both, and reports whether it is whole.
func (d *driver) sameSpool(tb testing.TB, file []byte) bool {
	tb.Helper()
	state, records := d.readSpool(tb, file)
	events, err := readSpool(bytes.NewReader(file))
	var damage *SpoolDamage
	want := byte(cWhole)
	if errors.As(err, &damage) {
		want = cDamaged
	} else if err != io.EOF {
		tb.Fatalf("error %v of %q", err, file)
	}
	if state != want || len(events) != len(records) {
		tb.Fatalf("C says %d and reads %d events, Go says %v and reads %d: %q", state, len(records), err, len(events), file)
	}
	for i, r := range records {
		if one, err := Decode(r); err != nil || !reflect.DeepEqual(one, events[i]) {
			tb.Fatalf("event %d: C reads %q, Go %+v, error %v", i+1, r, events[i], err)
		}
	}
	return want == cWhole
}

func randomRecords(rng *rand.Rand, n int) (records [][]byte) {
	for range n {
		r := randomRecord(rng, "2147483647").Encode()
		if r[1] == withSections && rng.IntN(4) == 0 {
			r = appendSection(r, 200, []byte("of a later version"))
		}
		records = append(records, r)
	}
	return records
}

func spoolAsCWrites(t *testing.T, d *driver, rng *rand.Rand) {
	for n := range 60 {
		records := randomRecords(rng, n)
		file := d.writeSpool(t, records)
		if want := spoolFile(records...); !bytes.Equal(file, want) {
			t.Fatalf("C writes\n%q, Go\n%q", file, want)
		}
		if !d.sameSpool(t, file) {
			t.Fatalf("neither reads what C writes: %q", file)
		}
	}
}

// Each cut, and each byte changed.
func spoolWithAWrongByte(t *testing.T, d *driver, rng *rand.Rand) {
	whole := d.writeSpool(t, [][]byte{encode(1, 1, 0, "0", "set", "a"), rich().Encode(), encode(1, 3, 0, "0", "del", "")})
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1 << rng.IntN(8)
		if d.sameSpool(t, whole[:i]) || d.sameSpool(t, changed) {
			t.Fatalf("byte %d: a damaged file passes for a whole one", i)
		}
	}
}

// Right check sums over wrong records, and a file's end behind another's start.
func spoolWithAnyDamage(t *testing.T, d *driver, rng *rand.Rand) {
	other, sound := spoolFile(encode(1, 1, 0, "0", "set", "a"), rich().Encode()), 0
	const rounds = 1000
	for range rounds {
		records := randomRecords(rng, 1+rng.IntN(5))
		for _, r := range records {
			for n := rng.IntN(3) * rng.IntN(2); n > 0; n-- {
				r[rng.IntN(len(r))] = byte(rng.IntN(9))
			}
		}
		file := spoolFile(records...)
		if rng.IntN(4) == 0 {
			at := rng.IntN(len(file))
			file = append(file[:at:at], other[rng.IntN(len(other)):]...)
		}
		if d.sameSpool(t, file) {
			sound++
		}
	}
	if sound < rounds/20 || sound > rounds*9/10 {
		t.Errorf("%d of %d files are whole: the test proves little", sound, rounds)
	}
}

func FuzzSpoolCAndGo(f *testing.F) {
	d := startSpoolDriver(f)
	f.Add(spoolFile())
	f.Add(spoolFile(encode(1, 2, 3, "0", "expired", "key"), rich().Encode()))
	f.Add([]byte("REDIS0011"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d.sameSpool(t, b)
		// And as a record with a right check sum.
		d.sameSpool(t, spoolFile(b))
	})
}

func spoolNames(t *testing.T, d *driver, rng *rand.Rand) {
	names, sound := []string{
		"key_evt_amqp.0123456789abcdef.7.spool", "key_evt_amqp.0123456789abcdef.7.spool.new",
		"key_evt_amqp.0123456789abcdef.7.spool.damaged.2", "key_evt_amqp.6379.spool", "key_evt_amqp.6379.spool.new",
		"key_evt_amqp.0123456789012345.spool", "key_evt_amqp.0123456789abcdef.18446744073709551615.spool",
		"key_evt_amqp.0123456789abcdef.18446744073709551616.spool", "key_evt_amqp.0123456789abcdef.007.spool",
		"key_evt_amqp.0123456789abcdef.spool", "key_evt_amqp.0123456789abcde.7.spool", "key_evt_amqp.0123456789ABCDEF.7.spool",
		"key_evt_amqp.0123456789abcdef.owner", "key_evt_amqp.0123456789abcdef.-7.spool", "dump.rdb", "", "key_evt_amqp.",
	}, 0
	for n := 90; n < 100; n++ {
		names = append(names, "key_evt_amqp.0123456789abcdef.7.spool."+strings.Repeat("x", n-38))
	}
	for _, name := range names[:8] {
		for range 200 {
			b := []byte(name)
			for n := rng.IntN(3); n > 0; n-- {
				at := rng.IntN(len(b))
				if b[at] = "0a.g- s"[rng.IntN(7)]; rng.IntN(2) == 0 {
					b = append(b[:at], b[at+1:]...)
				}
			}
			names = append(names, string(b))
		}
	}
	for _, name := range names {
		n, ok := ParseSpoolName(name)
		d.mu.Lock()
		d.send(t, AppendElement([]byte{'n'}, name))
		cOK := d.get(t, 1)[0] == 1
		id, rest := string(d.get(t, -1)), d.get(t, 10)
		d.mu.Unlock()
		if ok != cOK {
			t.Fatalf("%q: Go says %v, C %v", name, ok, cOK)
		}
		if !ok {
			continue
		}
		sound++
		number := binary.LittleEndian.Uint64(rest)
		if n.ID != id || n.Number != number || (n.Suffix == "") != (rest[8] == 1) || (n.Suffix == ".new") != (rest[9] == 1) {
			t.Fatalf("%q: Go says %+v, C %q, %d, %v", name, n, id, number, rest[8:])
		}
	}
	if sound < 300 || sound > len(names)-300 {
		t.Errorf("%d of %d names are sound: the test proves little", sound, len(names))
	}
}

func spoolOwners(t *testing.T, d *driver) {
	const id = "0123456789abcdef"
	whole := "key_evt_amqp owner 1\nconfig-file /etc/redis/redis.conf\ndataset dump.rdb appendonly\nnode \nunixsocket /run/a b\nport 6379\ntls-port 0\n"
	files := []string{whole, "", "key_evt_amqp owner 2\nport 1\n", "key_evt_amqp owner 1\nport\nport 1\nport 2\nwhat else\n",
		"key_evt_amqp owner 1\nport 1\x002\nnode a\n", "key_evt_amqp owner 1\nnode a\x1b[2J\x7f\xff\tb\r\n",
		"key_evt_amqp owner 1\nnode " + strings.Repeat("n", 600) + "\nport 5\n",
		"key_evt_amqp owner 1\nnode " + strings.Repeat("n", 4000) + "\nport 5\n"}
	for i := range whole {
		files = append(files, whole[:i], whole[:i]+"\n"+whole[i:], whole[:i]+"\x00"+whole[i+1:])
	}
	for n := 3300; n < 3340; n++ { // about what C reads of one
		files = append(files, "key_evt_amqp owner 1\nport 1\nelse "+strings.Repeat("x", n-40)+"\nport 2\n")
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(d.dir, OwnerName(id)), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadOwner(strings.NewReader(file))
		d.mu.Lock()
		d.send(t, AppendElement([]byte{'o'}, id))
		if d.get(t, 1)[0] != 1 {
			t.Fatalf("C does not find %s", OwnerName(id))
		}
		var facts [6]string
		for i := range facts {
			facts[i] = string(d.get(t, -1))
		}
		d.mu.Unlock()
		if want := (Owner{facts[0], facts[1], facts[2], facts[3], facts[4], facts[5]}); got != want {
			t.Fatalf("Go reads %+v, error %v, C %+v: %q", got, err, want, file)
		}
		if sound := strings.HasPrefix(file, ownerFirstLine); (err == nil) != sound {
			t.Fatalf("error %v of %q", err, file)
		}
	}
}
