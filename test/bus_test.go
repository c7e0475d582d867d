// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// noise is a module that sends what it is told to over the cluster bus, as any
// other module may, and whoever can reach the bus. With an argument it also hears
// what is sent, in our place.
const noise = `
#include "redisapi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long long messages, total;
static unsigned char *largest;
static uint32_t largest_len;

static void hear(RedisModuleCtx *ctx, const char *sender, uint8_t type,
		 const unsigned char *payload, uint32_t len)
{
	(void)ctx;
	(void)sender;
	(void)type;
	messages++;
	total += len;
	if (len < largest_len)
		return;
	free(largest);
	largest = malloc(len + 1);
	memcpy(largest, payload, len);
	largest_len = len;
}

/* noise.send message [times] */
static int send(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	size_t len;
	const char *bytes;
	long long times = 1;

	if (argc < 2)
		return RedisModule_WrongArity(ctx);
	if (argc > 2)
		times = atoll(RedisModule_StringPtrLen(argv[2], NULL));
	bytes = RedisModule_StringPtrLen(argv[1], &len);
	while (times-- > 0)
		RedisModule_SendClusterMessage(ctx, NULL, 163, bytes, (uint32_t)len);
	return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

/* noise.heard: "messages bytes", and forgets; noise.largest: the largest,
 * in hexadecimal, and forgets. */
static int heard(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	char text[64];

	(void)argv;
	(void)argc;
	snprintf(text, sizeof(text), "%lld %lld", messages, total);
	messages = total = 0;
	return RedisModule_ReplyWithSimpleString(ctx, text);
}

static int show(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	char *hex = malloc(2 * (size_t)largest_len + 1);
	int rc;

	(void)argv;
	(void)argc;
	hex[0] = 0;
	for (uint32_t i = 0; i < largest_len; i++)
		sprintf(hex + 2 * i, "%02x", largest[i]);
	largest_len = 0;
	rc = RedisModule_ReplyWithSimpleString(ctx, hex);
	free(hex);
	return rc;
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	(void)argv;
	if (kea_api_bind(ctx))
		return REDISMODULE_ERR;
	RedisModule_SetModuleAttribs(ctx, "noise", 1, REDISMODULE_APIVER_1);
	if (argc > 0)
		RedisModule_RegisterClusterMessageReceiver(ctx, 163, hear);
	return RedisModule_CreateCommand(ctx, "noise.send", send, "readonly", 0, 0, 0) ||
	       RedisModule_CreateCommand(ctx, "noise.heard", heard, "readonly", 0, 0, 0) ||
	       RedisModule_CreateCommand(ctx, "noise.largest", show, "readonly", 0, 0, 0);
}
`

func buildNoise(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src, out := filepath.Join(dir, "noise.c"), filepath.Join(dir, "noise.so")
	must(t, os.WriteFile(src, []byte(noise), 0o600))
	cc := or(os.Getenv("CC"), "cc")
	if text, err := exec.Command(cc, "@../c/flags", "-shared", "-fPIC", "-I../c", "-o", out, src, "../c/redisapi.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	must(t, os.Chmod(out, 0o755))
	return out
}

// TestClusterBusNoise: what is not ours, or is damaged, is ignored and counted.
func TestClusterBusNoise(t *testing.T) {
	c, _ := startCluster(t, "loadmodule "+buildNoise(t))
	must(t, c.Nodes[0].Do(ctx, "key_evt_amqp.keymask_set", "^a", "^k").Err())
	c.eachHas("key_mask", "^a ^k")
	messages := []string{"", "x", "KeAb", "KeAb\x01\x02", "KeAb\x02\x02\x00\x00\x00\x00", "KeAb\x01\x02\x00\x00\x00\x00settings",
		strings.Repeat("\xff", 70000)}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		b := make([]byte, random.IntN(200))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if random.IntN(2) == 0 {
			b = append([]byte("KeAb\x01"), b...)
		}
		messages = append(messages, string(b))
	}
	for _, m := range messages {
		must(t, c.Nodes[0].Do(ctx, "noise.send", m).Err())
	}
	eventually(t, func() error {
		for i, n := range c.Nodes[1:] {
			info, err := n.ModuleInfo()
			if err != nil || info["cluster_messages_ignored"] != strconv.Itoa(len(messages)) {
				return fmt.Errorf("node %d has ignored %s messages of %d, error %v", i+1, info["cluster_messages_ignored"], len(messages), err)
			}
		}
		return nil
	})
	c.eachHas("key_mask", "^a ^k")
	c.write(50)
	c.complete(nil)
	must(t, c.Nodes[3].Do(ctx, "key_evt_amqp.keymask_set", "^z").Err())
	c.eachHas("key_mask", "^z")
}

// spy is a node of the cluster that has not our module but noise: it says what it
// likes, and hears what is said to it.
type spy struct {
	*servers.Redis
	c     *cluster
	beat  int
	ahead time.Duration // of the clock, once something was stamped ahead
}

// now is a stamp that is later than all before it.
func (s *spy) now() time.Time { return time.Now().Add(s.ahead) }

func (c *cluster) spy() *spy {
	c.t.Helper()
	port, err := servers.FreePort()
	must(c.t, err)
	r, err := servers.NewRedis("cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-port "+strconv.Itoa(port),
		"cluster-node-timeout 2000", "loadmodule "+buildNoise(c.t)+" hear")
	must(c.t, err)
	c.t.Cleanup(r.Close)
	must(c.t, r.Start())
	must(c.t, r.Alive())
	must(c.t, c.Meet(r))
	s := &spy{Redis: r, c: c, beat: 100}
	eventually(c.t, func() error {
		for i, n := range append(c.Nodes, r) {
			text, err := n.Do(ctx, "CLUSTER", "NODES").Text()
			lines := strings.Count(text, "\n")
			if err != nil || lines != len(c.Nodes)+1 || strings.Count(text, " connected") != lines || strings.Contains(text, "handshake") {
				return fmt.Errorf("node %d knows %s, error %v", i, text, err)
			}
		}
		return nil
	})
	s.noticed() // and is heard by all
	return s
}

// says sends a message to every node, some times.
func (s *spy) says(message string, times int) {
	s.c.t.Helper()
	must(s.c.t, s.Do(ctx, "noise.send", message, times).Err())
}

// noticed waits until every node has taken in what was said so far: a setting
// that may be changed is changed behind it.
func (s *spy) noticed() {
	s.c.t.Helper()
	s.beat++
	value := strconv.Itoa(s.beat)
	eventually(s.c.t, func() error {
		s.says(seal(busSettings, entry("heartbeat", value, s.now())), 1)
		for i, n := range s.c.Nodes {
			if got := settingsOf(s.c.t, n)["heartbeat"]; got != value {
				return fmt.Errorf("node %d: heartbeat is %s, want %s", i, got, value)
			}
		}
		return nil
	})
}

// heard is how many messages and bytes came since it was last asked.
func (s *spy) heard() (messages, bytes int) {
	s.c.t.Helper()
	text, err := s.Do(ctx, "noise.heard").Text()
	must(s.c.t, err)
	_, err = fmt.Sscan(text, &messages, &bytes)
	must(s.c.t, err)
	return messages, bytes
}

// largest is the largest message that came since it was last asked.
func (s *spy) largest() string {
	s.c.t.Helper()
	text, err := s.Do(ctx, "noise.largest").Text()
	must(s.c.t, err)
	b, err := hex.DecodeString(text)
	must(s.c.t, err)
	return string(b)
}

// settingsSent is the message with everything that nodes have agreed on.
func (s *spy) settingsSent() (all string) {
	s.c.t.Helper()
	s.largest()
	eventually(s.c.t, func() error {
		s.says(seal(busSummary, "whatever"), 1)
		if all = s.largest(); len(all) < 20 {
			return fmt.Errorf("nodes answer %q", all)
		}
		return nil
	})
	return all
}

// Messages as module/busmessage.go has them.
const busSummary, busSettings = 1, 2

func seal(kind byte, payload string) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	b := binary.BigEndian.AppendUint32([]byte("KeAb\x01"+string(kind)), crc32.Checksum([]byte(string(kind)+payload), table))
	return string(b) + payload
}

func entry(name, value string, at time.Time) string {
	return stamped(name, value, uint64(at.UnixMicro()))
}

func stamped(name, value string, micros uint64) string {
	var b []byte
	for _, text := range []string{name, value} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return string(binary.BigEndian.AppendUint64(b, micros)) + strings.Repeat("f", 40)
}

func settingsOf(t *testing.T, n *servers.Redis) map[string]string {
	t.Helper()
	list, err := n.Do(ctx, "CONFIG", "GET", prefix+"*").StringSlice()
	must(t, err)
	out := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		out[strings.TrimPrefix(list[i], prefix)] = list[i+1]
	}
	return out
}

// spreading are the settings that commands change, on all nodes.
var spreading = []string{"hostname", "port", "username", "password", "heartbeat", "exchange_name", "routing_key",
	"delivery_mode", "fallback_storage_size", "key_mask"}

// TestClusterBusForged: somebody who can write to the bus, and knows the form of
// messages, can change what commands can change, and nothing else; nothing for
// good, and nothing that makes the servers slow.
func TestClusterBusForged(t *testing.T) {
	c, _ := startCluster(t)
	must(t, c.Nodes[0].Do(ctx, "key_evt_amqp.keymask_set", "^a", "^k").Err())
	c.eachHas("key_mask", "^a ^k")
	s := c.spy()
	before := make([]map[string]string, len(c.Nodes))
	remember := func() {
		for i, n := range c.Nodes {
			before[i] = settingsOf(t, n)
		}
	}
	// unchanged checks that what was said since remember changed nothing.
	unchanged := func(what string) {
		t.Helper()
		s.noticed()
		for i, n := range c.Nodes {
			for name, got := range settingsOf(t, n) {
				if name != "heartbeat" && got != before[i][name] {
					t.Errorf("%s: node %d has now %s %q, had %q", what, i, name, got, before[i][name])
				}
			}
		}
	}
	ignored := func() int { return c.sum("cluster_messages_ignored") }

	t.Run("settings that no command changes", func(t *testing.T) {
		remember()
		had := ignored()
		tried := 0
		for name := range before[0] {
			if strings.Contains(" "+strings.Join(spreading, " ")+" ", " "+name+" ") {
				continue
			}
			for _, value := range []string{"0", "1", "7", "70000", "yes", "no", "/etc/passwd", "json", "own", "A"} {
				s.says(seal(busSettings, entry(name, value, time.Now())), 1)
				tried++
			}
		}
		unchanged("settings that no command changes")
		if tried < 100 {
			t.Errorf("only %d messages were tried", tried)
		}
		if got := ignored() - had; got != tried*len(c.Nodes) {
			t.Errorf("%d messages were counted as ignored, want %d on each of %d nodes", got, tried, len(c.Nodes))
		}
		if all := s.settingsSent(); strings.Contains(all, "passwd") || !strings.Contains(all, "key_mask") {
			t.Errorf("nodes send on: %q", all)
		}
	})

	t.Run("stamps far ahead", func(t *testing.T) {
		remember()
		for _, stamp := range []uint64{1<<64 - 1, 1 << 63, uint64(time.Now().Add(25 * time.Hour).UnixMicro())} {
			s.says(seal(busSettings, stamped("routing_key", "pinned", stamp)), 1)
		}
		unchanged("stamps far ahead")
		// What is taken is not there for good: a later command is later.
		s.says(seal(busSettings, entry("routing_key", "pinned", time.Now().Add(23*time.Hour))), 1)
		c.eachHas("routing_key", "pinned")
		must(t, c.Nodes[1].Do(ctx, "key_evt_amqp.config_set", "127.0.0.1", strconv.Itoa(broker.Port), "guest", "guest", 5, "amq.direct", c.name).Err())
		c.eachHas("routing_key", c.name)
		s.ahead = 23*time.Hour + time.Minute // later than that command's
	})

	t.Run("names that are none, of any size", func(t *testing.T) {
		remember()
		for i, size := range []int{0, 1, 30, 64, 65, 70000, 1 << 20} {
			s.says(seal(busSettings, entry(strings.Repeat("x", size), strings.Repeat("v", size), time.Now())), 1)
			s.says(seal(busSettings, entry(fmt.Sprint("name", i), strings.Repeat("v", size), time.Now())), 1)
		}
		var many strings.Builder
		for i := range 60 {
			many.WriteString(entry(fmt.Sprint("many", i), "v", time.Now()))
		}
		s.says(seal(busSettings, many.String()), 1)
		for i := range 10000 {
			many.WriteString(entry(fmt.Sprint("many", i), "v", time.Now()))
		}
		s.says(seal(busSettings, many.String()), 1)
		s.says(seal(busSettings, strings.Repeat("x", 7<<20)), 1)
		unchanged("names that are none")
		if all := s.settingsSent(); len(all) > 2000 {
			t.Errorf("nodes send %d bytes: %.300q", len(all), all)
		}
	})

	t.Run("values that are none", func(t *testing.T) {
		remember()
		for _, bad := range [][2]string{{"port", "0"}, {"port", "abc"}, {"port", strings.Repeat("1", 70000)}, {"hostname", ""},
			{"hostname", "a b"}, {"delivery_mode", "3"}, {"key_mask", `"open`}, {"routing_key", strings.Repeat("x", 256)},
			{"password", strings.Repeat("x", 10000)}, {"username", strings.Repeat("x", 1<<20)}, {"link", "maybe"}, {"link", ""}} {
			s.says(seal(busSettings, entry(bad[0], bad[1], s.now())), 1)
		}
		s.says(seal(busSettings, strings.Replace(entry("port", "1", s.now()), strings.Repeat("f", 40), strings.Repeat("\x00", 40), 1)), 1)
		unchanged("values that are none")
		if all := s.settingsSent(); strings.Contains(all, "abc") || strings.Contains(all, "maybe") {
			t.Errorf("nodes send on: %q", all)
		}
	})

	t.Run("a message of before", func(t *testing.T) {
		old := s.settingsSent()
		must(t, c.Nodes[2].Do(ctx, "key_evt_amqp.keymask_set", "^k").Err())
		c.eachHas("key_mask", "^k")
		remember()
		s.says(old, 50)
		unchanged("a message of before")
	})

	t.Run("a flood of summaries", func(t *testing.T) {
		masks := []any{"key_evt_amqp.keymask_set", "^k"}
		for i := range 20000 {
			masks = append(masks, fmt.Sprintf("^flood%d:", i))
		}
		must(t, c.Nodes[0].Do(ctx, masks...).Err())
		eventually(t, func() error {
			for i, n := range c.Nodes {
				if info, err := n.ModuleInfo(); err != nil || info["masks"] != "20001" {
					return fmt.Errorf("node %d has %s masks, error %v", i, info["masks"], err)
				}
			}
			return nil
		})
		answer := len(s.settingsSent())
		s.heard()
		began := time.Now()
		slowest := pings(t, &rig{Redis: c.Nodes[0], t: t})
		s.says(seal(busSummary, "whatever"), 30000)
		s.noticed()
		longest, median := slowest()
		seconds := int(time.Since(began)/time.Second) + 2
		messages, bytes := s.heard()
		// Nodes also show it summaries of their own.
		if bytes < answer || bytes > len(c.Nodes)*seconds*(answer+1000) {
			t.Errorf("in %d seconds %d messages of %d bytes together came back, an answer has %d bytes", seconds, messages, bytes, answer)
		}
		t.Logf("30000 summaries to each of %d nodes: taken in within %v, answered by %d bytes; PING at most %v, usually %v",
			len(c.Nodes), time.Since(began), bytes, longest, median)
	})

	t.Run("a flood of settings", func(t *testing.T) {
		// Each is news, and each has many masks.
		mask := strings.Repeat("^flood[ab]*c.d:$ ", 20000)
		began := time.Now()
		for i := range 100 {
			s.says(seal(busSettings, entry("key_mask", mask+strconv.Itoa(i), s.now())), 1)
		}
		s.noticed()
		must(t, c.Nodes[0].Do(ctx, "key_evt_amqp.keymask_set", "^k").Err())
		c.eachHas("key_mask", "^k")
		t.Logf("100 lists of 20000 masks: taken in, and left behind, within %v", time.Since(began))
	})

	must(t, c.Nodes[0].Do(ctx, "key_evt_amqp.config_set", "127.0.0.1", strconv.Itoa(broker.Port), "guest", "guest", 5, "amq.direct", c.name).Err())
	c.eachHas("routing_key", c.name)
	c.write(50)
	c.complete(nil)
	for i, n := range c.Nodes {
		lines := 0
		for _, line := range strings.Split(n.Log(), "\n") {
			if strings.Contains(line, "are not taken") {
				lines++
			}
		}
		if lines == 0 || lines > 5 {
			t.Errorf("the log of node %d has %d lines about what was refused, want one for each kind of reason", i, lines)
		}
	}
}
