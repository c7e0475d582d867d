// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// monitor collects what MONITOR shows, until stop.
func (r *rig) monitor() (text func() string, stop func()) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	must(r.t, err)
	_, err = conn.Write([]byte("MONITOR\r\n"))
	must(r.t, err)
	in := bufio.NewReader(conn)
	ok, err := in.ReadString('\n')
	must(r.t, err)
	if ok != "+OK\r\n" {
		r.t.Fatalf("MONITOR: %q", ok)
	}
	lines := make(chan string, 100000)
	go func() {
		defer close(lines)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	var seen strings.Builder
	text = func() string {
		// Everything that was done before this has been shown after it.
		r.do("ECHO", "the end of what was monitored")
		for !strings.HasSuffix(seen.String(), "the end of what was monitored\"\r\n") {
			select {
			case line := <-lines:
				seen.WriteString(line)
			case <-time.After(patience):
				r.t.Fatal("MONITOR shows no end")
			}
		}
		return seen.String()
	}
	return text, func() {
		conn.Close()
		for range lines {
		}
	}
}

// slowlog is all of SLOWLOG GET.
func (r *rig) slowlog() string {
	r.t.Helper()
	return fmt.Sprintf("%q", r.do("SLOWLOG", "GET", "-1"))
}

// files are the contents of all files in the server's dir but redis.conf.
func (r *rig) files() (out map[string]string) {
	r.t.Helper()
	out = map[string]string{}
	must(r.t, filepath.WalkDir(r.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "redis.conf" {
			return err
		}
		text, err := os.ReadFile(path)
		out[d.Name()] = string(text)
		return err
	}))
	return out
}

func lacks(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s has the password: …%s…", where, text[max(0, at-200):min(len(text), at+len(secret)+50)])
		}
	}
}

func TestOurCommandsShowNoPassword(t *testing.T) {
	const user, right, wrong, refused, denied, queued, configured = "keeper", "rIghT-pass", "wRong-pass", "reFused-pass", "deNied-pass", "quEued-pass", "cOnfigured-pass"
	secrets := []string{right, wrong, refused, denied, queued}
	ctl := func(args ...string) {
		t.Helper()
		_, err := broker.Ctl(args...)
		must(t, err)
	}
	ctl("add_user", user, right)
	t.Cleanup(func() { ctl("delete_user", user) })
	ctl("set_permissions", user, ".*", ".*", ".*")
	quiet := []string{"slowlog-log-slower-than 0", "slowlog-max-len 100000", "loglevel debug", "appendonly yes", "crash-memcheck-enabled no"}
	master := start(t, options{events: "$", config: append(quiet, "maxmemory 1gb")})
	replica := start(t, options{silent: true, events: "$", config: append(quiet, "replicaof 127.0.0.1 "+strconv.Itoa(master.Port))})
	eventually(t, func() error {
		info, err := replica.Info(ctx, "replication").Result()
		if err != nil || !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("no link to the master, error %v", err)
		}
		return nil
	})
	rigs := map[string]*rig{"the master": master, "the replica": replica}
	shown := map[string]func() string{}
	for name, r := range rigs {
		text, stop := r.monitor()
		defer stop()
		shown[name] = text
	}

	port := strconv.Itoa(master.port)
	master.fails("ACCESS_REFUSED", "key_evt_amqp.connect", "127.0.0.1", port, user, wrong)
	master.do("key_evt_amqp.config_set", "127.0.0.1", port, user, wrong, "20", "amq.direct", master.name)
	master.do("SET", "k0", "v")
	master.until("last_error", func(v string) bool { return strings.Contains(v, "ACCESS_REFUSED") })
	master.fails("heartbeat", "key_evt_amqp.config_set", "127.0.0.1", port, user, refused, "70000")
	master.fails("heartbeat", "key_evt_amqp.connect", "127.0.0.1", port, user, refused, "70000")
	pipe := master.TxPipeline()
	pipe.Do(ctx, "key_evt_amqp.config_set", "127.0.0.1", port, user, queued)
	pipe.Do(ctx, "key_evt_amqp.connect", "127.0.0.1", port, user, queued)
	_, err := pipe.Exec(ctx)
	must(t, err)
	limited := master.as("limited", "+@all", "-key_evt_amqp.config_set", "-key_evt_amqp.connect")
	for _, command := range []string{"config_set", "connect"} {
		if err := limited.Do(ctx, "key_evt_amqp."+command, "127.0.0.1", port, user, denied).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%s: got error %v, want NOPERM", command, err)
		}
	}
	master.do("key_evt_amqp.connect", "127.0.0.1", port, user, right)
	master.do("SET", "k1", "v")
	master.arrives(setBodies("k", 2))
	// The replica has it, so that a failover changes nothing.
	eventually(t, func() error {
		if got := replica.settings()["password"]; got != right {
			return fmt.Errorf("the replica's password is %q", got)
		}
		return nil
	})

	if log := fmt.Sprint(master.do("ACL", "LOG")); !strings.Contains(log, "key_evt_amqp.connect") {
		t.Errorf("ACL LOG has no denied connect: %s", log)
	} else {
		lacks(t, "ACL LOG", log, secrets...)
	}
	for name, r := range rigs {
		slow := r.slowlog()
		for _, want := range []string{"key_evt_amqp.config_set", "key_evt_amqp.connect", "(redacted)"} {
			if !strings.Contains(slow, want) {
				t.Errorf("SLOWLOG of %s has no %s, the test looks at nothing", name, want)
			}
		}
		lacks(t, "SLOWLOG of "+name, slow, secrets...)
		lacks(t, "MONITOR of "+name, shown[name](), secrets...)
		lacks(t, "INFO of "+name, r.do("INFO", "everything").(string), secrets...)
		lacks(t, "CLIENT LIST of "+name, r.do("CLIENT", "LIST").(string), secrets...)
		lacks(t, "LATENCY of "+name, fmt.Sprint(r.do("LATENCY", "DOCTOR")), secrets...)
	}
	if text := shown["the master"](); !strings.Contains(text, `"SET" "k1"`) {
		t.Errorf("MONITOR shows no SET, the test looks at nothing:\n%s", text)
	}
	// CONFIG SET is the server's own command: it shows in SLOWLOG, and
	// nowhere else. If this fails the server has learned: docs/security.md.
	master.do(configSet("password", configured)...)
	if !strings.Contains(master.slowlog(), configured) {
		t.Error("SLOWLOG does not show what CONFIG SET was given: docs/security.md says that it does")
	}
	master.do(configSet("password", right)...)
	secrets = append(secrets, configured)
	lacks(t, "INFO after CONFIG SET", master.do("INFO", "everything").(string), secrets...)
	lacks(t, "MONITOR after CONFIG SET", shown["the master"](), secrets...)

	master.do("BGREWRITEAOF")
	replica.do("SAVE")
	_ = master.Do(ctx, "DEBUG", "SEGFAULT").Err()
	eventually(t, func() error {
		if !strings.Contains(master.Log(), "BUG REPORT END") {
			return fmt.Errorf("no crash report yet")
		}
		return nil
	})
	master.crashed = true
	for name, r := range rigs {
		for file, text := range r.files() {
			lacks(t, "the file "+file+" of "+name, text, secrets...)
		}
	}
}

func TestPasswordFileKeepsThePasswordFromTheServer(t *testing.T) {
	const user, secret, argument = "filed", "in-the-file-only", "as-an-argument"
	_, err := broker.Ctl("add_user", user, secret)
	must(t, err)
	t.Cleanup(func() { _, _ = broker.Ctl("delete_user", user) })
	// The least right that docs/security.md names.
	_, err = broker.Ctl("set_permissions", user, "^$", `^amq\.direct$`, "^$")
	must(t, err)
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	r := prepare(t, options{noLoad: true, config: []string{"slowlog-log-slower-than 0", "loglevel debug"}})
	args := r.loadArgs(options{events: "$"})
	args[4], args[5] = user, argument
	r.Config = append(r.Config, "loadmodule "+strings.Join(args, " "), prefix+"password_file "+file)
	must(t, r.Start())
	r.do("SET", "k", "v")
	r.arrives([]string{"0\nset\nk"})
	r.balanced(0, 0)
	hello := fmt.Sprint(r.as("nobody", "-@all").Do(ctx, "HELLO").Val())
	// What docs/security.md warns of: load arguments are for everybody.
	if !strings.Contains(hello, argument) {
		t.Error("HELLO of a user without any right shows no load arguments: docs/security.md says that it does")
	}
	lacks(t, "HELLO", hello, secret)
	r.do("CONFIG", "REWRITE")
	lacks(t, "MODULE LIST", fmt.Sprint(r.do("MODULE", "LIST")), secret)
	lacks(t, "CONFIG GET", fmt.Sprint(r.ConfigGet(ctx, "*").Val()), secret)
	lacks(t, "INFO", r.do("INFO", "everything").(string), secret)
	lacks(t, "SLOWLOG", r.slowlog(), secret)
	config, err := os.ReadFile(filepath.Join(r.Dir, "redis.conf"))
	must(t, err)
	if !strings.Contains(string(config), file) {
		t.Error("redis.conf does not name the file")
	}
	lacks(t, "redis.conf", string(config), secret)
	for name, text := range r.files() {
		lacks(t, "the file "+name, text, secret)
	}
}
