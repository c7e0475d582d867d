// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// commands are ours, as COMMAND INFO and COMMAND DOCS must have them.
var commands = []struct {
	name      string
	arity     int64
	arguments []string // name type flags
	call      []any    // some arguments that are taken
}{
	{"config_set", -2, append([]string{"hostname string"}, settingsFromPort...), []any{"127.0.0.1"}},
	{"connect", -1, append([]string{"hostname string optional"}, settingsFromPort...), nil},
	{"disconnect", 1, nil, nil},
	{"fallback_storage_size_set", 2, []string{"n integer"}, []any{"1000"}},
	{"keymask_clean", 1, nil, nil},
	{"keymask_add", -2, []string{"mask string multiple"}, []any{"a"}},
	{"keymask_set", -2, []string{"mask string multiple"}, []any{"a"}},
	{"snapshot", -1, []string{"mask string optional multiple"}, nil},
	{"snapshot_cancel", 1, nil, nil},
	{"fallback_peek", -1, []string{"n integer optional"}, []any{"3"}},
}

var settingsFromPort = []string{
	"port integer optional", "username string optional", "password string optional", "heartbeat integer optional",
	"exchange_name string optional", "routing_key string optional", "delivery_mode integer optional",
	"fallback_storage_size integer optional", "key_mask string optional multiple",
}

// serverHas asks the running server for a function of its module API: the
// names by which it hands them out are in its program, which is whatever file
// is mapped there and not ours.
func (r *rig) serverHas(function string) bool {
	r.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", r.Pid()))
	must(r.t, err)
	seen := map[string]bool{module(r.t): true}
	for _, line := range strings.Split(string(maps), "\n") {
		at := strings.IndexByte(line, '/')
		if at < 0 || seen[line[at:]] || !strings.Contains(line[:at], "r-xp") {
			continue
		}
		seen[line[at:]] = true
		program, err := os.ReadFile(line[at:])
		must(r.t, err)
		if bytes.Contains(program, []byte("RedisModule_"+function+"\x00")) {
			return true
		}
	}
	return false
}

// fields makes a map of a reply that lists names and values in turn.
func fields(reply any) map[string]any {
	list, out := reply.([]any), map[string]any{}
	for i := 0; i+1 < len(list); i += 2 {
		out[fmt.Sprint(list[i])] = list[i+1]
	}
	return out
}

func words(reply any) (out []string) {
	if reply == nil {
		return nil
	}
	for _, word := range reply.([]any) {
		out = append(out, fmt.Sprint(word))
	}
	return out
}

func TestCommandInfoAndDocs(t *testing.T) {
	r := start(t, options{silent: true})
	var listed, want []string
	for _, name := range words(r.do("COMMAND", "LIST", "FILTERBY", "MODULE", "key_evt_amqp")) {
		listed = append(listed, strings.TrimPrefix(name, "key_evt_amqp."))
	}
	for _, command := range commands {
		want = append(want, command.name)
	}
	slices.Sort(listed)
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("the module's commands are %q, want %q", listed, want)
	}
	for _, command := range commands {
		name := "key_evt_amqp." + command.name
		info := r.do("COMMAND", "INFO", name).([]any)[0].([]any)
		if info[1] != command.arity {
			t.Errorf("%s: arity is %v, want %d", name, info[1], command.arity)
		}
		flags := words(info[2])
		for _, flag := range []string{"admin", "noscript", "loading", "stale"} {
			if !slices.Contains(flags, flag) {
				t.Errorf("%s: flags %q lack %s", name, flags, flag)
			}
		}
		for _, flag := range []string{"write", "fast", "denyoom", "blocking"} {
			if slices.Contains(flags, flag) {
				t.Errorf("%s: flags %q have %s", name, flags, flag)
			}
		}
		if keys := fmt.Sprint(info[3:6]...); keys != "0 0 0" {
			t.Errorf("%s: positions of keys are %s, but it has no keys", name, keys)
		}
		docs := fields(fields(r.do("COMMAND", "DOCS", name))[name])
		if docs["since"] != "0.1.0" || docs["group"] != "module" || docs["module"] != "key_evt_amqp" {
			t.Errorf("%s: docs are %v", name, docs)
		}
		if summary := fmt.Sprint(docs["summary"]); len(summary) < 15 || !strings.HasSuffix(summary, ".") {
			t.Errorf("%s: summary is %q", name, summary)
		}
		var arguments []string
		if docs["arguments"] != nil {
			for _, a := range docs["arguments"].([]any) {
				f := fields(a)
				line := fmt.Sprintf("%v %v %s", f["name"], f["type"], strings.Join(words(f["flags"]), " "))
				arguments = append(arguments, strings.TrimSpace(line))
			}
		}
		if !reflect.DeepEqual(arguments, command.arguments) {
			t.Errorf("%s: arguments are\n%q, want\n%q", name, arguments, command.arguments)
		}
	}
}

// as is a client of a user with these rules.
func (r *rig) as(user string, rules ...any) *redis.Client {
	r.t.Helper()
	r.do(append([]any{"ACL", "SETUSER", user, "reset", "on", ">secret"}, rules...)...)
	c := redis.NewClient(&redis.Options{Addr: r.Addr(), Username: user, Password: "secret", Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	r.t.Cleanup(func() { c.Close() })
	return c
}

func TestACLCategories(t *testing.T) {
	r := start(t, options{silent: true})
	var want []string
	if r.serverHas("SetCommandACLCategories") {
		want = append(want, "@admin", "@dangerous")
	}
	own := r.serverHas("AddACLCategory")
	if own {
		want = append(want, "@key_evt_amqp")
	}
	check := func() {
		t.Helper()
		for _, command := range commands {
			info := r.do("COMMAND", "INFO", "key_evt_amqp."+command.name).([]any)[0].([]any)
			got := words(info[6])
			// Some servers add @slow by themselves.
			got = slices.DeleteFunc(got, func(c string) bool { return c == "@slow" })
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: ACL categories are %q, want %q", command.name, got, want)
			}
		}
		if got := slices.Contains(words(r.do("ACL", "CAT")), "key_evt_amqp"); got != own {
			t.Errorf("ACL CAT has our category: %v, want %v", got, own)
		}
	}
	check()
	// The category outlives the module; a second load must find it again.
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	must(t, r.load(options{}))
	check()
}

func TestWhoMayRunTheCommands(t *testing.T) {
	r := start(t, options{}) // with a queue: snapshot makes an event, and connect waits for it
	categories, own := r.serverHas("SetCommandACLCategories"), r.serverHas("AddACLCategory")
	type user struct {
		name  string
		rules []any
		may   bool
	}
	users := []user{
		{"all", []any{"+@all"}, true},
		{"nothing", []any{"-@all"}, false},
		{"reader", []any{"-@all", "+@read"}, false},
		// Where the server can't be told a module command's categories
		// (Redis 7.0), a user with +@all has our commands too, unless they
		// are taken away by name: docs/security.md.
		{"safe", []any{"+@all", "-@dangerous"}, !categories},
		{"unprivileged", []any{"+@all", "-@admin"}, !categories},
		{"administrator", []any{"-@all", "+@admin"}, categories},
	}
	if own {
		users = append(users, user{"own", []any{"-@all", "+@key_evt_amqp"}, true}, user{"but-own", []any{"+@all", "-@key_evt_amqp"}, false})
	}
	named, without := []any{"-@all"}, []any{"+@all"}
	for _, command := range commands {
		named = append(named, "+key_evt_amqp."+command.name)
		without = append(without, "-key_evt_amqp."+command.name)
	}
	users = append(users, user{"named", named, true}, user{"without", without, false})
	for _, u := range users {
		t.Run(u.name, func(t *testing.T) {
			c := r.as(u.name, u.rules...)
			for _, command := range commands {
				err := c.Do(ctx, append([]any{"key_evt_amqp." + command.name}, command.call...)...).Err()
				if denied := err != nil && strings.HasPrefix(err.Error(), "NOPERM"); denied == u.may || err != nil && !denied {
					t.Errorf("%s by a user with %v: may is %v, got error %v", command.name, u.rules, u.may, err)
				}
			}
		})
	}
	t.Run("one command by name", func(t *testing.T) {
		c := r.as("one", "-@all", "+key_evt_amqp.keymask_add")
		must(t, c.Do(ctx, "key_evt_amqp.keymask_add", "x").Err())
		if err := c.Do(ctx, "key_evt_amqp.keymask_clean").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("another command: got error %v, want NOPERM", err)
		}
	})
	t.Run("a denied command changes nothing", func(t *testing.T) {
		before := r.ConfigGet(ctx, "key_evt_amqp.*").Val()
		c := r.as("denied", "+@all", "-key_evt_amqp.config_set")
		if err := c.Do(ctx, "key_evt_amqp.config_set", "elsewhere", "1").Err(); err == nil {
			t.Error("not denied")
		}
		if after := r.ConfigGet(ctx, "key_evt_amqp.*").Val(); !reflect.DeepEqual(before, after) {
			t.Errorf("settings were %v, are %v", before, after)
		}
	})
}

func TestRulesByNameInAnACLFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.acl")
	must(t, os.WriteFile(file, []byte("user default on nopass ~* &* +@all\nuser app on >secret ~* +@all -key_evt_amqp.connect\n"), 0o600))
	r := start(t, options{silent: true, config: []string{"aclfile " + file}})
	c := redis.NewClient(&redis.Options{Addr: r.Addr(), Username: "app", Password: "secret", Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	defer c.Close()
	must(t, c.Do(ctx, "key_evt_amqp.keymask_add", "x").Err())
	if err := c.Do(ctx, "key_evt_amqp.connect").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Errorf("got error %v, want NOPERM", err)
	}
}
