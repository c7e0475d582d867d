// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// What TestSameAsTheServersOwn draws its commands from. Words in braces are
// replaced (word); commands that a server does not know cost an error. HSETEX
// never names a field twice: Redis 8.6.3 then fails an assertion, without any
// module too.
var differentialCommands = strings.Split(strings.TrimSpace(`
SET {s} {v}
SET {s} {v} PX {ms}
SET {s} {v} EX 100
SET {s} {v} NX GET
SET {s} {v} XX KEEPTTL
SET {any} {v} PXAT {soon}
SET {s} {v} PXAT {past}
SET {s} {v} IFEQ {v}
SETEX {s} 100 {v}
PSETEX {s} {ms} {v}
SETNX {s} {v}
GETSET {s} {v}
GETDEL {s}
DELEX {s} IFEQ {v}
GETEX {s} PX {ms}
GETEX {s} PERSIST
GETEX {s} PXAT {past}
GET {any}
GET {long}
SET {long} {v}
GET key_evt_amqp.fallback
MSET {s} {v} {s} {v} {s} {v}
MSETNX {s} {v} {s} {v}
MSETEX 2 {s} {v} {s} {v} PX {ms}
MGET {any} {any}
APPEND {s} {v}
INCR {s}
DECRBY {s} {n}
INCRBYFLOAT {s} 1.5
SET {s} {n}
SETRANGE {s} {n} {v}
SETBIT {s} {n} 1
BITFIELD {s} SET u8 0 {n} INCRBY u4 8 1
BITOP OR {s} {s} {s}
BITOP NOT {any} {s}
PFADD {p} {v} {v}
PFMERGE {p} {p} {p}
PFCOUNT {p} {p}
LPUSH {l} {v} {v}
RPUSH {l} {v} {v} {v}
LPUSHX {l} {v}
LPOP {l}
RPOP {l} {n}
LMPOP 2 {l} {l} LEFT COUNT {n}
LMOVE {l} {l} LEFT RIGHT
RPOPLPUSH {l} {l}
LINSERT {l} BEFORE {v} {v}
LREM {l} 0 {v}
LSET {l} 0 {v}
LTRIM {l} 1 {n}
LTRIM {l} 5 1
SORT {l} ALPHA STORE {any}
SORT {e} BY nosort STORE {l}
SADD {e} {m} {m} {m}
SREM {e} {m} {m}
SPOP {e}
SPOP {e} {n}
SPOP {e} 1000
SMOVE {e} {e} {m}
SINTERSTORE {any} {e} {e}
SUNIONSTORE {e} {e} {e}
SDIFFSTORE {e} {e} {e}
HSET {h} {f} {v} {f} {v}
HSETNX {h} {f} {v}
HDEL {h} {f} {f} {f}
HINCRBY {h} {f}n 1
HINCRBYFLOAT {h} {f}n 1.5
HPEXPIRE {h} {ms} FIELDS 2 {f} {f}
HEXPIRE {h} 100 NX FIELDS 1 {f}
HPEXPIREAT {h} {past} FIELDS 2 {f} {f}
HPERSIST {h} FIELDS 1 {f}
HGETDEL {h} FIELDS 2 {f} {f}
HGETEX {h} PX {ms} FIELDS 1 {f}
HGETEX {h} PERSIST FIELDS 1 {f}
HSETEX {h} PX {ms} FIELDS 2 {f} {v} g {v}
HSETEX {h} PXAT {past} FIELDS 1 {f} {v}
HGETALL {h}
ZADD {z} {n} {m} {n} {m}
ZADD {z} XX GT CH {n} {m}
ZADD {z} INCR {n} {m}
ZINCRBY {z} {n} {m}
ZREM {z} {m} {m}
ZREMRANGEBYRANK {z} 0 {n}
ZREMRANGEBYSCORE {z} 0 {n}
ZREMRANGEBYLEX {z} - [m3
ZPOPMIN {z}
ZPOPMAX {z} {n}
ZMPOP 2 {z} {z} MIN COUNT {n}
ZRANGESTORE {any} {z} 0 {n}
ZUNIONSTORE {z} 2 {z} {z}
ZINTERSTORE {any} 2 {z} {e}
ZDIFFSTORE {z} 2 {z} {z}
GEOADD {z} 13.{n} 38.{n} {m}
GEOSEARCHSTORE {any} {z} FROMLONLAT 13 38 BYRADIUS 200 km
GEORADIUS {z} 13 38 200 km STORE {z}
XADD {x} * f {v}
XADD {x} MAXLEN = {n} * f {v}
XADD {x} NOMKSTREAM MINID = 5 * f {v}
XDEL {x} 0-1
XTRIM {x} MAXLEN {n}
XSETID {x} 99999999999999-0
XGROUP CREATE {x} g 0 MKSTREAM
XGROUP SETID {x} g 0
XGROUP CREATECONSUMER {x} g c{n}
XGROUP DELCONSUMER {x} g c{n}
XGROUP DESTROY {x} g
XREADGROUP GROUP g c{n} COUNT 1 STREAMS {x} >
XAUTOCLAIM {x} g c{n} 0 0 COUNT 2
XACKDEL {x} g FIELDS 1 0-1
DEL {any}
DEL {any} {any} {any}
UNLINK {any} {any}
EXPIRE {any} 100
EXPIRE {any} 100 NX
EXPIRE {any} -1
PEXPIRE {any} {ms}
PEXPIRE {any} {ms} GT
PEXPIREAT {any} {past}
EXPIREAT {any} 4000000000
PERSIST {any}
RENAME {any} {any}
RENAMENX {any} {any}
COPY {any} {any}
COPY {any} {any} REPLACE
COPY {any} {any} DB {db} REPLACE
MOVE {any} {db}
RESTORE {any} 0 {dump}
RESTORE {any} {ms} {dump} REPLACE
RESTORE {any} {past} {dump} REPLACE ABSTTL
RESTORE {any} 0 {dump} REPLACE IDLETIME 10
TOUCH {any} {any}
SELECT {db}
SELECT {db}
SCAN 0 COUNT 100
RANDOMKEY
`), "\n")

// These come first, so that what they make is in every run: the luck of the draw
// leaves one or the other out.
var differentialFirst = strings.Split(strings.TrimSpace(`
SET first v
MOVE first 2
RPUSH first 2 1
SORT first STORE sorted
LPOP first
RENAME sorted first
SADD set m
SPOP set
ZADD zset 1 m 2 n
ZRANGESTORE ranged zset 0 -1
HSET hash f v
XADD stream * f v
XGROUP CREATE stream g 0
SETBIT bits 1 1
PFADD hll v
GET missing
DEL zset ranged hash stream bits hll
SET short v PX 1
COPY short copied
COPY first third DB 3
`), "\n")

// Each of these comes once in some hundred commands.
var differentialRare = strings.Split(strings.TrimSpace(`
FLUSHDB
FLUSHDB ASYNC
FLUSHALL
SWAPDB {db} {db}
`), "\n")

// What clients wait with; others serve them.
var differentialBlocking = strings.Split(strings.TrimSpace(`
BLPOP {l} {l} 0.02
BRPOP {l} {any} 0.02
BLMOVE {l} {l} RIGHT LEFT 0.02
BRPOPLPUSH {l} {l} 0.02
BLMPOP 0.02 2 {l} {l} RIGHT COUNT {n}
BZPOPMIN {z} {z} 0.02
BZPOPMAX {z} 0.02
BZMPOP 0.02 2 {z} {z} MIN COUNT {n}
XREADGROUP GROUP g c{n} COUNT 1 BLOCK 20 STREAMS {x} >
XREAD BLOCK 20 STREAMS {x} $
SELECT {db}
`), "\n")

// longKey makes the keyspace channel longer than an AMQP routing key may be.
var longKey = strings.Repeat("long", 75)

// author writes commands; the same seed, the same commands.
type author struct {
	*rand.Rand
	dumps []string
}

func (a author) key(kind string) string {
	if a.IntN(12) == 0 { // of another type, or none
		return a.key(string("slehzxp"[a.IntN(7)]))
	}
	// Bytes that channel and message have to carry as they are.
	return kind + []string{"", "1", ":\n", "\x00\xff", " ü"}[a.IntN(5)]
}

func (a author) word(name string) string {
	switch name {
	case "any":
		return a.key(string("slehzxp"[a.IntN(7)]))
	case "v":
		return strings.Repeat(strconv.Itoa(a.IntN(4)), 1+a.IntN(3)*a.IntN(40))
	case "n":
		return strconv.Itoa(a.IntN(10))
	case "f", "m":
		return name + strconv.Itoa(a.IntN(6))
	case "ms":
		return strconv.Itoa(1 + a.IntN(40))
	case "soon":
		return strconv.FormatInt(time.Now().UnixMilli()+int64(a.IntN(40)), 10)
	case "past":
		return "1000000000000"
	case "db":
		return strconv.Itoa(a.IntN(4))
	case "long":
		return longKey
	case "dump":
		return a.dumps[a.IntN(len(a.dumps))]
	}
	return a.key(name)
}

// fill makes a template's words arguments.
func (a author) fill(template string) (args []any) {
	for _, word := range strings.Fields(template) {
		if before, rest, ok := strings.Cut(word, "{"); ok {
			name, after, _ := strings.Cut(rest, "}")
			word = before + a.word(name) + after
		}
		args = append(args, word)
	}
	return args
}

func (a author) command() []any {
	if a.IntN(150) == 0 {
		return a.fill(differentialRare[a.IntN(len(differentialRare))])
	}
	return a.fill(differentialCommands[a.IntN(len(differentialCommands))])
}

// lua is a command as a script calls it.
func lua(args []any) string {
	out := make([]string, len(args))
	for i, arg := range args {
		var b strings.Builder
		b.WriteByte('"')
		for _, c := range []byte(arg.(string)) {
			fmt.Fprintf(&b, `\%03d`, c)
		}
		b.WriteByte('"')
		out[i] = b.String()
	}
	return "redis.pcall(" + strings.Join(out, ",") + ")"
}

// next is what a client sends next: a command, a transaction, a script, or a
// function and its call.
func (a author) next() [][]any {
	several := func(one func() []any) (out [][]any) {
		for range 1 + a.IntN(6) {
			out = append(out, one())
		}
		return out
	}
	script := func() string {
		var b strings.Builder
		for _, command := range several(a.command) {
			b.WriteString(lua(command) + "\n")
		}
		return b.String()
	}
	one := func() []any {
		if a.IntN(12) == 0 {
			return []any{"EVAL", script(), "0"}
		}
		return a.command()
	}
	switch a.IntN(20) {
	case 0, 1:
		return append(append([][]any{{"MULTI"}}, several(one)...), []any{"EXEC"})
	case 2:
		name := "f" + strconv.Itoa(a.IntN(3))
		code := "#!lua name=" + name + "\nredis.register_function('" + name + "', function() " + script() + " end)"
		return [][]any{{"FUNCTION", "LOAD", "REPLACE", code}, {"FCALL", name, "0"}}
	}
	if a.IntN(200) == 0 {
		// What does not fit is evicted before the next write. Never within a
		// transaction, which would leave the limit in place.
		return [][]any{{"CONFIG", "SET", "maxmemory", "1"}, {"SET", a.key("s"), "v"}, {"CONFIG", "SET", "maxmemory", "0"}}
	}
	return [][]any{one()}
}
