// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const prefix = "key_evt_amqp."

// settings are all that CONFIG GET shows of the module, names without prefix.
func (r *rig) settings() map[string]string {
	r.t.Helper()
	got, err := r.ConfigGet(ctx, prefix+"*").Result()
	must(r.t, err)
	out := map[string]string{}
	for name, value := range got {
		out[strings.TrimPrefix(name, prefix)] = value
	}
	return out
}

// shows checks some settings, each named and then given.
func (r *rig) shows(pairs ...string) {
	r.t.Helper()
	got := r.settings()
	for i := 0; i < len(pairs); i += 2 {
		value, ok := got[pairs[i]]
		if !ok || value != pairs[i+1] {
			r.t.Errorf("%s is %q, want %q", pairs[i], value, pairs[i+1])
		}
	}
}

func configSet(pairs ...string) []any {
	args := []any{"CONFIG", "SET"}
	for i := 0; i < len(pairs); i += 2 {
		args = append(args, prefix+pairs[i], pairs[i+1])
	}
	return args
}

// unlike are values that differ from every default and load argument of a rig;
// none needs a broker, and binary stands for all bytes.
var unlike = []string{
	"events", "g$xKE", "hostname", "rabbit1,rabbit2:5673,[::1]", "port", "5999", "username", "us er", "password", "p\"a'ss\\ \xff\x01",
	"heartbeat", "0", "exchange_name", "", "routing_key", "a b.{db}\n{key}", "delivery_mode", "1",
	"fallback_storage_size", "-9223372036854775808", "key_mask", `^a.*$ "two words" "\"" "'" "\\" "\x00\xff\n" "" "ü"`,
	"vhost", "", "connect_timeout", "4321", "reconnect_delay_max", "54321", "max_inflight", "77",
	"buffer_limit", "70000", "outbox", "yes", "shutdown_timeout", "0", "mandatory", "no", "dataset_events", "yes",
	"value", "new", "value_limit", "4321", "expire_on_time", "yes", "expire_watch_limit", "1234567",
}

func TestEverySettingIsInTheReference(t *testing.T) {
	r := start(t, options{silent: true})
	page, err := os.ReadFile("../docs/configuration.md")
	must(t, err)
	for name := range r.settings() {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/configuration.md has no %s", name)
		}
	}
}

func TestRedisConfWinsOverLoadArguments(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("lines before loadmodule %v", before), func(t *testing.T) {
			r := prepare(t, options{noLoad: true, silent: true})
			load := "loadmodule " + r.loadLine(options{})
			lines := []string{
				prefix + "events $", prefix + "port 1234", strings.ToUpper(prefix) + "HEARTBEAT 55", prefix + `exchange_name ""`,
				prefix + "fallback_storage_size -1", prefix + "outbox yes", prefix + "vhost my-host",
				prefix + `key_mask ^a.* '^b b$' c`, // three words to the server, which joins them with blanks: four masks
				prefix + "max_inflight 5", prefix + "max_inflight 6",
			}
			if before {
				r.Config = append(lines, load)
			} else {
				r.Config = append([]string{load}, lines...)
			}
			must(t, r.Start())
			must(t, r.Alive())
			r.shows("events", "$", "port", "1234", "heartbeat", "55", "exchange_name", "", "fallback_storage_size", "-1",
				"outbox", "yes", "vhost", "my-host", "key_mask", "^a.* ^b b$ c", "max_inflight", "6",
				"hostname", "127.0.0.1", "username", "guest", "delivery_mode", "2", "routing_key", r.name)
			if got := r.info("masks"); got != "4" {
				t.Errorf("%s masks, want 4", got)
			}
		})
	}
}

func TestMasksInRedisConf(t *testing.T) {
	r := start(t, options{events: "$", config: []string{prefix + `key_mask '^a.*$ "two words" "\x00\xff"'`}})
	for _, key := range []string{"abc", "two", "words", "my two words", "\x00\xff", "zz"} {
		r.do("SET", key, "v")
	}
	r.arrives([]string{"0\nset\nabc", "0\nset\nmy two words", "0\nset\n\x00\xff"})
	r.balanced(0, 0)
}

func TestWrongLinesInRedisConfRefuseTheStart(t *testing.T) {
	for _, test := range []struct{ line, says string }{
		{"events Q", "events"}, {"port 0", "port"}, {"port x", "port"}, {"delivery_mode 3", "delivery_mode"},
		{"outbox maybe", "outbox"}, {"hostname a:b:c", "hostname"}, {`key_mask '"open'`, "key_mask"},
		{"password_file /nowhere/at/all", "password_file"}, {"no_such_setting 1", "no_such_setting"},
	} {
		t.Run(test.line, func(t *testing.T) {
			r := prepare(t, options{silent: true, config: []string{prefix + test.line}})
			_ = r.Start()
			eventually(t, func() error {
				if r.Alive() == nil {
					return fmt.Errorf("the server runs")
				}
				return nil
			})
			// Of a name that nobody knows some servers say nothing more
			// than that there is one.
			log := r.Log()
			if !strings.Contains(log, test.says) && !(test.says == "no_such_setting" && strings.Contains(log, "Module Configuration")) {
				t.Errorf("the log does not say %s:\n%s", test.says, log)
			}
		})
	}
}

func TestConfigSetOfSeveralIsAllOrNothing(t *testing.T) {
	r := start(t, options{events: "$", masks: "^a"})
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte("guest\n"), 0o600))
	r.do(configSet("password_file", secret, "heartbeat", "19", "max_inflight", "50")...)
	before := r.settings()
	same := func(after string) {
		t.Helper()
		if got := r.settings(); !reflect.DeepEqual(got, before) {
			t.Fatalf("after %s: settings were\n%v, are\n%v", after, before, got)
		}
	}
	good := []string{"heartbeat", "11", "key_mask", "^b", "events", "x", "port", "9", "outbox", "yes", "fallback_storage_size", "3"}
	for _, bad := range [][]string{
		{"hostname", ""}, {"delivery_mode", "9"}, {"mandatory", "perhaps"}, {"password_file", "/nowhere/at/all"},
		{"vhost", strings.Repeat("x", 256)}, {"key_mask", `"open`}, {"key_mask", strings.Repeat("x", 70000)}, {"events", "Q"},
	} {
		r.fails(bad[0], configSet(append(append([]string(nil), bad...), good...)...)...)
		same("the bad one first: " + bad[0])
		mixed := append(append([]string(nil), good[:6]...), bad...)
		r.fails(bad[0], configSet(append(mixed, good[6:]...)...)...)
		same("the bad one in the middle: " + bad[0])
		r.fails(bad[0], configSet(append(append([]string(nil), good...), bad...)...)...)
		same("the bad one last: " + bad[0])
	}
	r.fails("maxmemory", append(configSet(good...), "maxmemory", "a lot")...)
	same("a bad one of the server's own, last")
	r.fails("maxmemory", append([]any{"CONFIG", "SET", "maxmemory", "a lot"}, configSet(good...)[2:]...)...)
	same("a bad one of the server's own, first")

	// What was refused must not come back by another door, nor be in effect.
	r.do("key_evt_amqp.keymask_add", "^c")
	before["key_mask"] = "^a ^c"
	same("keymask_add")
	// The old value can't be checked again when it has to be restored.
	must(t, os.Remove(secret))
	r.fails("maxmemory", append(configSet("password_file", "", "heartbeat", "12"), "maxmemory", "a lot")...)
	same("a value that would not be taken any more")
	r.fails("hostname", configSet("password_file", "", "hostname", "")...)
	same("a value that would not be taken any more, and one of ours")
	must(t, os.WriteFile(secret, []byte("guest\n"), 0o600))

	for _, key := range []string{"a1", "b1", "c1"} {
		r.do("SET", key, "v")
	}
	r.arrives([]string{"0\nset\na1", "0\nset\nc1"})
	r.balanced(0, 0)
}

// rewritesQuotes asks the server whether CONFIG REWRITE escapes quotes and
// backslashes, in a setting of its own: Valkey 8.1.0 and 8.1.1 forget to, and
// then can't read their own redis.conf.
func (r *rig) rewritesQuotes() bool {
	r.t.Helper()
	r.do("CONFIG", "SET", "masterauth", `a"b\c`)
	r.do("CONFIG", "REWRITE")
	text, err := os.ReadFile(filepath.Join(r.Dir, "redis.conf"))
	must(r.t, err)
	r.do("CONFIG", "SET", "masterauth", "")
	r.do("CONFIG", "REWRITE")
	return strings.Contains(string(text), `"a\"b\\c"`)
}

func TestConfigRewriteAndRestartGiveTheSameSettings(t *testing.T) {
	r := start(t, options{silent: true, config: []string{"# a comment", prefix + "heartbeat 44"}})
	atLoad := r.settings()
	values, masks, file := slices.Clone(unlike), "8", `a password's "file"`
	words, mask := []any{"^k", "a b", "\x00\xfe"}, `^k "a b" "\x00\xfe"`
	if !r.rewritesQuotes() {
		t.Log("this server's CONFIG REWRITE does not escape quotes and backslashes: left out")
		for i := 1; i < len(values); i += 2 {
			values[i] = strings.NewReplacer(`"`, "", `\`, "").Replace(values[i])
			if values[i-1] == "key_mask" {
				values[i], masks = `^a.*$ 'two words' ''`, "3"
			}
		}
		file = "a password's file"
		words, mask = []any{"^k", "ab"}, "^k ab"
	}
	restart := func(want map[string]string) {
		t.Helper()
		r.do("CONFIG", "REWRITE")
		r.Terminate()
		r.KeepConfig = true
		must(t, r.Start())
		must(t, r.Alive())
		if got := r.settings(); !reflect.DeepEqual(got, want) {
			text, _ := os.ReadFile(filepath.Join(r.Dir, "redis.conf"))
			t.Fatalf("settings were\n%q, are\n%q; redis.conf:\n%s", want, got, text)
		}
	}
	restart(atLoad)

	secret := filepath.Join(t.TempDir(), file)
	must(t, os.WriteFile(secret, []byte("guest\n"), 0o600))
	r.do(configSet(append(values, "password_file", secret)...)...)
	want := r.settings()
	for name, value := range want {
		if value == atLoad[name] && !strings.HasPrefix(name, "tls") && name != "format" && name != "hostname" {
			t.Errorf("%s is %q as at load: the test does not change it", name, value)
		}
	}
	r.shows(values...)
	restart(want)
	if got := r.info("masks"); got != masks {
		t.Errorf("%s masks, want %s", got, masks)
	}
	restart(want)

	// And back to what the load arguments say, over lines that say otherwise.
	var back []string
	for name, value := range atLoad {
		back = append(back, name, value)
	}
	r.do(configSet(back...)...)
	restart(atLoad)

	// What commands set, CONFIG REWRITE keeps too.
	r.do(append([]any{"key_evt_amqp.keymask_set"}, words...)...)
	r.do("key_evt_amqp.fallback_storage_size_set", "123")
	r.do("key_evt_amqp.config_set", "elsewhere")
	want = r.settings()
	restart(want)
	r.shows("key_mask", mask, "fallback_storage_size", "123", "hostname", "elsewhere")
}

func loadex(path string, config []string, args ...string) []any {
	out := []any{"MODULE", "LOADEX", path}
	for i := 0; i < len(config); i += 2 {
		out = append(out, "CONFIG", prefix+config[i], config[i+1])
	}
	if len(args) > 0 {
		out = append(out, "ARGS")
	}
	for _, a := range args {
		out = append(out, a)
	}
	return out
}

func TestLoadEx(t *testing.T) {
	r := start(t, options{noLoad: true})
	path, args := module(t), r.loadArgs(options{events: "$", masks: "^a"})[1:]
	gone := func() {
		t.Helper()
		if got := r.do("COMMAND", "INFO", "key_evt_amqp.connect").([]any); got[0] != nil {
			t.Error("a command is left behind")
		}
		if got := r.settings(); len(got) != 0 {
			t.Errorf("configurations are left behind: %v", got)
		}
		if got := fmt.Sprint(r.do("MODULE", "LIST")); strings.Contains(got, "key_evt_amqp") {
			t.Errorf("MODULE LIST: %v", got)
		}
		r.sets("nobody", 10) // an event must not find what was freed
	}
	for _, bad := range []struct {
		name   string
		config []string
		args   []string
	}{
		{"a configuration", []string{"heartbeat", "9", "port", "0"}, args},
		{"an unknown configuration", []string{"heartbeat", "9", "no_such", "1"}, args},
		{"an argument", []string{"heartbeat", "9"}, append([]string{"Q"}, args[1:]...)},
		{"a mask too large", []string{"key_mask", strings.Repeat("x", 70000)}, args},
		{"a file that is not there", []string{"password_file", "/nowhere/at/all"}, args},
	} {
		t.Run("bad: "+bad.name, func(t *testing.T) {
			if err := r.Do(ctx, loadex(path, bad.config, bad.args...)...).Err(); err == nil {
				t.Fatal("taken")
			}
			gone()
		})
	}
	r.do(loadex(path, []string{"heartbeat", "9", "key_mask", `^b "c c"`, "outbox", "yes"}, args...)...)
	r.shows("events", "$", "heartbeat", "9", "key_mask", `^b "c c"`, "outbox", "yes", "routing_key", r.name)
	for _, key := range []string{"a1", "b1", "my c c"} {
		r.do("SET", key, "v")
	}
	r.arrives([]string{"0\nset\nb1", "0\nset\nmy c c"})
	r.balanced(0, 0)
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	gone()
	// Only configurations, no arguments.
	r.do(loadex(path, []string{"events", "$", "port", strconv.Itoa(r.port), "routing_key", r.name, "key_mask", "ALL"})...)
	r.do("SET", "last", "v")
	r.arrives([]string{"0\nset\nb1", "0\nset\nmy c c", "0\nset\nlast"})
	r.balanced(0, 0)
}

func TestCommandsAndConfigurationsAreTwoDoorsToOneRoom(t *testing.T) {
	r := start(t, options{events: "$", masks: "^a"})
	// By command, seen by CONFIG GET.
	r.do("key_evt_amqp.config_set", "127.0.0.1", strconv.Itoa(r.port), "guest", "guest", "21", "amq.direct", r.name, "1", "500", "^b", "c d")
	r.shows("heartbeat", "21", "delivery_mode", "1", "fallback_storage_size", "500", "key_mask", `^b "c d"`)
	// By CONFIG SET, kept by a command that leaves it out, and added to.
	r.do(configSet("heartbeat", "22", "key_mask", `^e "f f"`, "delivery_mode", "2", "fallback_storage_size", "600", "vhost", "/")...)
	r.do("key_evt_amqp.config_set", "localhost,127.0.0.1")
	r.do("key_evt_amqp.keymask_add", "^g")
	r.shows("hostname", "localhost,127.0.0.1", "heartbeat", "22", "delivery_mode", "2", "fallback_storage_size", "600", "key_mask", `^e "f f" ^g`)
	r.do("key_evt_amqp.fallback_storage_size_set", "700")
	r.do("key_evt_amqp.config_set", "127.0.0.1")
	r.shows("fallback_storage_size", "700", "hostname", "127.0.0.1")
	for _, key := range []string{"a", "b", "c d", "e", "f f", "g"} {
		r.do("SET", key, "v")
	}
	r.arrives([]string{"0\nset\ne", "0\nset\nf f", "0\nset\ng"})
	if got := r.queue.Messages()[0].DeliveryMode; got != 2 {
		t.Errorf("delivery_mode is %d, want 2", got)
	}
	r.do(configSet("key_mask", "", "delivery_mode", "1")...)
	r.do("SET", "e", "v")
	r.do(configSet("key_mask", "ALL")...)
	r.do("SET", "anything", "v")
	r.arrives([]string{"0\nset\ne", "0\nset\nf f", "0\nset\ng", "0\nset\nanything"})
	if got := r.queue.Messages()[3].DeliveryMode; got != 1 {
		t.Errorf("delivery_mode is %d, want 1", got)
	}
	r.do("key_evt_amqp.keymask_clean")
	r.shows("key_mask", "")
	r.balanced(0, 0)
}

func TestEventsChangedAtRunTime(t *testing.T) {
	r := start(t, options{events: "s"})
	must(t, broker.Bind(r.name, "amq.direct", "__keyevent@0__:sadd", nil))
	var want []string
	step := func(classes string, taken ...string) {
		t.Helper()
		r.do(configSet("events", classes)...)
		r.shows("events", classes)
		r.do("SADD", "s", len(want))
		r.do("SET", "k", "v")
		r.do("HSET", "h", len(want), "v")
		r.do("DEL", "h")
		want = append(want, taken...)
		r.arrives(want)
	}
	sadd, set, hset, del := "0\nsadd\ns", "0\nset\nk", "0\nhset\nh", "0\ndel\nh"
	step("s", sadd)
	step("s$", sadd, set)           // grow
	step("A", sadd, set, hset, del) // by several, some known already
	step("h", hset)                 // shrink
	step("$g", set, del)            // to what was subscribed before
	step("sE", "s")                 // a view
	step("A", sadd, set, hset, del)
	for _, bad := range []string{"", "KE", "Q"} {
		r.fails("events", configSet("events", bad)...)
	}
	r.do(configSet("heartbeat", "21")...) // with nothing of what was refused
	step("A", sadd, set, hset, del)
	r.balanced(0, 0)
}

func TestPasswordFileIsReadAtEachConnection(t *testing.T) {
	const user = "rotated"
	ctl := func(args ...string) {
		t.Helper()
		_, err := broker.Ctl(args...)
		must(t, err)
	}
	ctl("add_user", user, "first password")
	t.Cleanup(func() { ctl("delete_user", user) })
	ctl("set_permissions", user, ".*", ".*", ".*")
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	write("first password\nnot this\n")
	r, p := proxied(t, options{events: "$", config: []string{prefix + "username " + user, prefix + "password_file " + file}})
	r.do("SET", "1", "v")
	r.arrives(setBodies("", 2)[1:])

	// Rotated: the live connection goes on, the next one takes the new one.
	ctl("change_password", user, "second")
	write("second\r\n")
	r.do("SET", "2", "v")
	r.arrives(setBodies("", 3)[1:])
	p.Cut()
	r.sets("a", 100)
	must(t, p.Mend())
	want := append(setBodies("", 3)[1:], setBodies("a", 100)...)
	r.arrives(want)

	// Rotated, and the file comes too late: nothing is lost meanwhile.
	ctl("change_password", user, "third")
	p.Cut()
	r.sets("b", 100)
	must(t, p.Mend())
	r.until("last_error", func(v string) bool { return strings.Contains(v, "ACCESS_REFUSED") })
	must(t, os.Remove(file))
	r.until("last_error", func(v string) bool { return strings.Contains(v, "password_file") })
	write("third")
	want = append(want, setBodies("b", 100)...)
	r.arrives(want)
	r.balanced(0, 0)
	// The password that is set is not used while there is a file.
	r.shows("password", "guest", "password_file", file)
	for _, secret := range []string{"first password", "second", "third"} {
		if strings.Contains(r.Log(), secret) {
			t.Errorf("the log has the password %q", secret)
		}
	}
}
