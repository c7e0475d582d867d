// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// What the documentation tells people to type is typed here. Its pages are
// README.md and docs/**/*.md; each code block is fenced and says what it is:
//
//	sh       a shell script; every command must succeed
//	console  a session: commands after "$ " or "127.0.0.1:6379> ", and below
//	         each the lines that its output must show, in this order; … in
//	         them stands for anything
//	redis    commands for redis-cli, none of which may answer an error
//	conf     a server starts with it, where it is one for Redis with the module
//	others   text that nobody types, or files: not run
//
// A page's blocks run in its order, beside a Redis with the module, and a
// RabbitMQ with a queue bound as the module's defaults want it. Ports and paths
// that the pages name stand for those of the test (docsRig.here).

// notRun are commands that are left out, and why.
var notRun = []struct {
	command *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`^make (test|bench)`), "it is what runs us, or measures for long"},
	{regexp.MustCompile(`^(sudo |apt|apt-get |dnf |dpkg -i |rpm -i)`), "changes the system; packages and make install have tests of their own"},
	{regexp.MustCompile(`^systemctl `), "there is no systemd in a test"},
	{regexp.MustCompile(`^(docker|kubectl) `), "not there in a test"},
}

// notCode are the languages of blocks that are not run.
var notCode = []string{"text", "yaml", "json", "ini", "go", "c", "python", "js", "javascript", "lua", "promql", "erlang", "diff"}

// docsBlock is one fenced block.
type docsBlock struct {
	line     int // of its first line
	language string
	lines    []string
}

// blocks reads a page. Its errors are those of the page's author.
func blocks(page string) (found []docsBlock, problems []error) {
	var open *docsBlock
	fence := ""
	list := false // within a list, where indentation means nothing
	blank := true // after a blank line
	for i, line := range strings.Split(page, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case open != nil && trimmed == fence:
			found, open = append(found, *open), nil
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(trimmed, "```"):
			fence = trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "`"))]
			open = &docsBlock{line: i + 2, language: trimmed[len(fence):]}
			if open.language == "" {
				problems = append(problems, fmt.Errorf("line %d: a block with no language: sh, console, redis, conf are run, %s are not", i+1, strings.Join(notCode, ", ")))
			}
		case strings.HasPrefix(line, "    ") && blank && !list:
			problems = append(problems, fmt.Errorf("line %d: an indented block, of which nobody knows whether it can be run: fence it", i+1))
		}
		blank = trimmed == ""
		if !blank && open == nil {
			list = regexp.MustCompile(`^\s*([-*+]|\d+\.) `).MatchString(line) || list && strings.HasPrefix(line, " ")
		}
	}
	if open != nil {
		problems = append(problems, fmt.Errorf("line %d: the block does not end", open.line))
	}
	return found, problems
}

// shellCommands splits a script at the ends of its commands: lines, except those
// that go on (\) and for here-documents.
func shellCommands(lines []string) (out []string) {
	var now []string
	heredoc := ""
	for _, line := range lines {
		now = append(now, line)
		if heredoc == "" {
			if m := regexp.MustCompile(`<<-?\s*['"]?(\w+)`).FindStringSubmatch(line); m != nil {
				heredoc = m[1]
				continue
			}
		} else if strings.TrimSpace(line) != heredoc {
			continue
		}
		heredoc = ""
		if strings.HasSuffix(line, `\`) {
			continue
		}
		out, now = append(out, strings.Join(now, "\n")), nil
	}
	return append(out, now...)
}

func leftOut(command string) bool {
	return slices.ContainsFunc(notRun, func(n struct {
		command *regexp.Regexp
		why     string
	}) bool {
		return n.command.MatchString(strings.TrimSpace(command))
	})
}

// step is one command of a session and what it must show.
type step struct {
	command string
	redis   bool // typed into redis-cli
	shows   []string
}

const redisPrompt = "127.0.0.1:6379> "

func session(lines []string) (steps []step, err error) {
	for _, line := range lines {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, step{command: command})
		} else if command, ok := strings.CutPrefix(line, redisPrompt); ok {
			steps = append(steps, step{command: command, redis: true})
		} else if len(steps) == 0 {
			return nil, fmt.Errorf("a session begins with a prompt, %q or %q, not with %q", "$ ", redisPrompt, line)
		} else if last := &steps[len(steps)-1]; strings.HasSuffix(last.command, `\`) && len(last.shows) == 0 {
			last.command += "\n" + line
		} else if strings.TrimSpace(line) != "" {
			last.shows = append(last.shows, strings.TrimSpace(line))
		}
	}
	return steps, nil
}

// showsAll checks that an output has these lines in this order.
func showsAll(output string, want []string) error {
	rest := strings.Split(output, "\n")
	for _, line := range want {
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern := regexp.MustCompile(`^` + strings.Join(parts, ".*") + `$`)
		at := slices.IndexFunc(rest, func(l string) bool { return pattern.MatchString(strings.TrimSpace(l)) })
		if at < 0 {
			return fmt.Errorf("the output does not show %q, or not in this order:\n%s", line, output)
		}
		rest = rest[at+1:]
	}
	return nil
}

// docsRig is where one page's blocks run.
type docsRig struct {
	*rig
	broker *servers.Broker
	tree   string // a copy of the source tree: the folder that commands run in
	etc    string // stands for /etc/redis
	bin    string // of our redis-cli and rabbitmqctl
}

func startDocs(t *testing.T, broker *servers.Broker) *docsRig {
	t.Helper()
	d := &docsRig{broker: broker, tree: filepath.Join(t.TempDir(), "key_evt_amqp"), etc: t.TempDir(), bin: t.TempDir()}
	d.rig = prepare(t, options{noLoad: true, silent: true, config: []string{"loadmodule " + module(t) + " A 127.0.0.1 " +
		fmt.Sprint(broker.Port) + " guest guest 30 amq.direct redis_keyspace_events 2 10000000 ALL"}})
	must(t, d.Start())
	must(t, d.Alive())
	copyTree(t, "..", d.tree)
	real := func(name string) string {
		path, err := exec.LookPath(name)
		must(t, err)
		return path
	}
	// -e: an error reply is a failing command.
	d.wrap("redis-cli", nil, real("redis-cli"), "-e", "-p", fmt.Sprint(d.Port))
	for _, name := range []string{"rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-plugins", "rabbitmq-queues"} {
		path := "/usr/lib/rabbitmq/bin/" + name
		if name == "rabbitmqctl" && os.Getenv("KEA_RABBITMQCTL") != "" {
			path = os.Getenv("KEA_RABBITMQCTL")
		}
		d.wrap(name, broker.Env(), path)
	}
	return d
}

// wrap makes a command that runs another one, with first arguments.
func (d *docsRig) wrap(name string, env []string, command ...string) {
	quote := func(words []string) (out []string) {
		for _, w := range words {
			out = append(out, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		return out
	}
	text := "#!/bin/sh\n"
	for _, line := range quote(env) {
		if name, _, ok := strings.Cut(strings.Trim(line, "'"), "="); ok && regexp.MustCompile(`^\w+$`).MatchString(name) && name != "PATH" {
			text += "export " + line + "\n"
		}
	}
	text += "exec " + strings.Join(quote(command), " ") + ` "$@"` + "\n"
	must(d.t, os.WriteFile(filepath.Join(d.bin, name), []byte(text), 0o755))
}

// copyTree copies the source tree, without what was built and the history.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	must(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == ".git" || rel == "build" || e.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, info.Mode())
	}))
}

// here puts the test's ports and paths in the place of the pages'.
func (d *docsRig) here(text string) string {
	for _, dir := range []string{"/path/to/", "/usr/lib/redis/modules/", "/usr/lib64/redis/modules/"} {
		text = strings.ReplaceAll(text, dir+so, module(d.t))
	}
	text = strings.ReplaceAll(text, "/etc/redis/", d.etc+"/")
	text = strings.ReplaceAll(text, "/usr/share/doc/redis-key-evt-amqp/", d.tree+"/")
	text = regexp.MustCompile(`\b6379\b`).ReplaceAllString(text, fmt.Sprint(d.Port))
	return regexp.MustCompile(`\b5672\b`).ReplaceAllString(text, fmt.Sprint(d.broker.Port))
}

// shell runs a script in the copy of the tree.
func (d *docsRig) shell(script string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limited, "bash", "-euo", "pipefail", "-c", d.here(script))
	cmd.Dir = d.tree
	cmd.Env = append(os.Environ(), "PATH="+d.bin+":"+os.Getenv("PATH"), "MAKEFLAGS=", "MFLAGS=")
	// With all that it has started, should it take too long.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s\n%w\n%s", script, err, out)
	}
	return string(out), err
}

// redisCli types one line into redis-cli, which then shows what it shows on a
// terminal.
func (d *docsRig) redisCli(line string) (string, error) {
	out, err := d.shell("redis-cli --no-raw <<'END-OF-LINE'\n" + line + "\nEND-OF-LINE")
	// From its input -e does not hold.
	if err == nil && strings.HasPrefix(out, "(error)") {
		err = errors.New(line + ": " + out)
	}
	return out, err
}

// run runs a block, or says why it fails.
func (d *docsRig) run(b docsBlock) error {
	text := strings.Join(b.lines, "\n")
	if slices.Contains(notCode, b.language) {
		return nil
	}
	if b.language != "console" && b.language != "conf" && strings.Contains(text, "…") {
		return errors.New("it has a hole (…) and cannot be run: mark it as text")
	}
	// A block that makes a folder or loads the module starts without it.
	if strings.Contains(text, "mkdir build") {
		must(d.t, os.RemoveAll(filepath.Join(d.tree, "build")))
	}
	if strings.Contains(text, "MODULE LOAD") {
		d.unload()
	}
	switch b.language {
	case "sh":
		script := slices.DeleteFunc(shellCommands(b.lines), leftOut)
		_, err := d.shell(strings.Join(script, "\n"))
		return err
	case "redis":
		for _, line := range b.lines {
			if _, err := d.redisCli(line); err != nil {
				return err
			}
		}
		return nil
	case "console":
		steps, err := session(b.lines)
		if err != nil {
			return err
		}
		for _, s := range steps {
			if leftOut(s.command) {
				continue
			}
			run := d.shell
			if s.redis {
				run = d.redisCli
			}
			out, err := run(s.command)
			// An error that the page shows is one that it means.
			if err == nil || slices.ContainsFunc(s.shows, func(l string) bool { return strings.HasPrefix(l, "(error)") }) {
				err = showsAll(out, s.shows)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case "conf":
		return d.serves(d.here(text))
	}
	return fmt.Errorf("the language %q is not known: sh, console, redis, conf are run, %s are not", b.language, strings.Join(notCode, ", "))
}

// unload takes the module out, once nothing is under way.
func (d *docsRig) unload() {
	info, err := d.ModuleInfo()
	if err != nil {
		return // it is out already
	}
	if info["events_buffered"] != "0" {
		d.until("events_buffered", is("0"))
	}
	d.do("MODULE", "UNLOAD", "key_evt_amqp")
}

// serves starts a server with lines of redis.conf that are about the module.
func (d *docsRig) serves(text string) error {
	if !regexp.MustCompile(`(?m)^(loadmodule|key_evt_amqp\.)`).MatchString(text) {
		return nil
	}
	// Files that the page speaks of and does not make.
	for _, path := range regexp.MustCompile(regexp.QuoteMeta(d.etc)+`/[\w./-]+`).FindAllString(text, -1) {
		if _, err := os.Stat(path); err != nil {
			must(d.t, os.WriteFile(path, []byte("guest\n"), 0o600))
		}
	}
	config := strings.Split(text, "\n")
	if !strings.Contains(text, "loadmodule") {
		config = append([]string{"loadmodule " + module(d.t)}, config...)
	}
	r, err := servers.NewRedis(config...)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Start(); err != nil {
		return err
	}
	if err := r.Alive(); err != nil {
		return err
	}
	_, err = r.ModuleInfo()
	return err
}

// pages are all that the repository has, by their paths in it.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths := []string{"README.md"}
	must(t, filepath.WalkDir("../docs", func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			paths = append(paths, strings.TrimPrefix(path, "../"))
		}
		return err
	}))
	found := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile("../" + path)
		must(t, err)
		found[path] = string(text)
	}
	return found
}

func TestEveryCommandOfTheDocumentation(t *testing.T) {
	// A broker of their own, for rabbitmqctl may do anything to it.
	broker, err := servers.NewBroker()
	must(t, err)
	t.Cleanup(broker.Close)
	must(t, broker.Start())
	must(t, broker.Bind("events", "amq.direct", "redis_keyspace_events", nil))
	ran := 0
	for path, page := range pages(t) {
		t.Run(path, func(t *testing.T) {
			found, problems := blocks(page)
			for _, err := range problems {
				t.Error(err)
			}
			if !slices.ContainsFunc(found, func(b docsBlock) bool { return !slices.Contains(notCode, b.language) }) {
				return
			}
			d := startDocs(t, broker)
			for _, b := range found {
				if err := d.run(b); err != nil {
					t.Errorf("%s:%d: %v", path, b.line, err)
				}
				ran++
			}
		})
	}
	if ran == 0 {
		t.Error("no page has a block")
	}
}

// The test above can fail.
func TestDocumentationThatIsWrongIsSeen(t *testing.T) {
	fence := func(language, text string) string { return "Text.\n\n```" + language + "\n" + text + "\n```\n" }
	for name, c := range map[string]struct{ page, want string }{
		"good": {fence("sh", "redis-cli SET a 1 >/dev/null\nls Makefile \\\n  README.md\nsudo rm -rf /nonexistent\ncat <<EOF | grep -q two\none\ntwo\nEOF") +
			fence("redis", "SET b \"1 2\"\nCONFIG SET key_evt_amqp.delivery_mode 2") +
			fence("console", "$ redis-cli GET b\n1 2\n127.0.0.1:6379> GET b\n\"1 2\"\n127.0.0.1:6379> NOSUCH\n(error) ERR unknown command 'NOSUCH'…\n127.0.0.1:6379> INFO key_evt_amqp\n…\nkey_evt_amqp_state:…\nkey_evt_amqp_masks:1") +
			fence("conf", "key_evt_amqp.delivery_mode 2\nkey_evt_amqp.password_file /etc/redis/some-file") +
			fence("conf", "listeners.tcp.default = 5672") +
			fence("text", "anything …") + "- a list\n\n    goes on\n", ""},
		"a failing command":           {fence("sh", "false\ntrue"), "exit status 1"},
		"a failing end of a pipe":     {fence("sh", "false | cat"), "exit status 1"},
		"a command that is not there": {fence("sh", "redis-client GET a"), "not found"},
		"an error reply in a script":  {fence("sh", "redis-cli NOSUCH"), "unknown command"},
		"an error reply":              {fence("redis", "SET a 1\nkey_evt_amqp.keymask_ad x"), "unknown command"},
		"a wrong argument":            {fence("redis", "CONFIG SET key_evt_amqp.delivery_mode 3"), "delivery_mode"},
		"an error reply in a session": {fence("console", "127.0.0.1:6379> NOSUCH"), "unknown command"},
		"another output":              {fence("console", "$ echo one\ntwo"), `does not show "two"`},
		"another order":               {fence("console", "$ printf 'one\\ntwo\\n'\ntwo\none"), `does not show "one"`},
		"no prompt":                   {fence("console", "echo one"), "begins with a prompt"},
		"a setting that is not there": {fence("conf", "key_evt_amqp.delivery_mod 2"), "has ended"},
		"a file that is not there":    {fence("conf", "loadmodule /nonexistent.so"), "has ended"},
		"a hole":                      {fence("redis", "key_evt_amqp.keymask_add …"), "hole"},
		"an unknown language":         {fence("shell", "true"), "not known"},
		"no language":                 {fence("", "true"), "no language"},
		"an indented block":           {"Text.\n\n    make\n", "indented"},
		"a block that does not end":   {"```sh\ntrue\n", "does not end"},
	} {
		t.Run(name, func(t *testing.T) {
			found, problems := blocks(c.page)
			d := startDocs(t, broker)
			for _, b := range found {
				if err := d.run(b); err != nil {
					problems = append(problems, err)
				}
			}
			err := errors.Join(problems...)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// Commands, settings and targets that the pages only name exist, and so do
// the targets of their links.
func TestDocumentationNamesWhatThereIs(t *testing.T) {
	r := start(t, options{})
	known := map[string]bool{
		"key_evt_amqp.fallback": true, // the list
		"key_evt_amqp.conf":     true, // an operator's file
		"key_evt_amqp.lua":      true,
	}
	for name := range r.configurations() {
		known["key_evt_amqp."+name] = true
	}
	names, err := r.CommandList(ctx, &redis.FilterBy{Module: "key_evt_amqp"}).Result()
	must(t, err)
	for _, name := range names {
		known[name] = true
	}
	makefile, err := os.ReadFile("../Makefile")
	must(t, err)
	all := pages(t)
	for path, page := range all {
		for _, name := range regexp.MustCompile(`key_evt_amqp\.[a-z][a-z_]*`).FindAllString(page, -1) {
			if !known[name] {
				t.Errorf("%s: %s is not a command, setting or key", path, name)
			}
		}
		for _, m := range regexp.MustCompile("`make ([a-z][a-z0-9-]*)").FindAllStringSubmatch(page, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s: make has no target %s", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`).FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", path, m[1])
			} else if m[2] != "" && !slices.Contains(anchors(all[target]), m[2]) {
				t.Errorf("%s: %s has no heading %s", path, target, m[2])
			}
		}
	}
}

// anchors are the headings of a page as links name them.
func anchors(page string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		words := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(words, " ", "-"))
	}
	return out
}
