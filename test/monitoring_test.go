// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// exporter starts Debian's prometheus-redis-exporter with our script for a
// server, and returns its address.
func exporter(t *testing.T, r *rig, flags ...string) string {
	t.Helper()
	script, err := filepath.Abs("../docs/monitoring/key_evt_amqp.lua")
	must(t, err)
	port, err := servers.FreePort()
	must(t, err)
	addr := "127.0.0.1:" + strconv.Itoa(port)
	tool, err := servers.StartTool(t.TempDir(), "prometheus-redis-exporter", append([]string{
		"-redis.addr", "redis://" + r.Addr(), "-web.listen-address", addr, "-script", script}, flags...)...)
	must(t, err)
	t.Cleanup(tool.Close)
	eventually(t, func() error {
		if err := tool.Alive(); err != nil {
			t.Fatal(err)
		}
		_, err := fetch("http://" + addr + "/metrics")
		return err
	})
	return addr
}

// fetch reads a page and leaves no connection behind.
func fetch(address string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get(address)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", address, resp.Status, body)
	}
	return string(body), err
}

var figure = regexp.MustCompile(`(?m)^redis_script_values\{(?:filename="[^"]*",)?key="(key_evt_amqp_\w+)"\} (\S+)$`)

// figures are ours among an exporter's, names without the prefix.
func figures(t *testing.T, addr string) map[string]float64 {
	t.Helper()
	text, err := fetch("http://" + addr + "/metrics")
	must(t, err)
	if !strings.Contains(text, "\nredis_up 1\n") {
		t.Fatalf("redis_up is not 1: %s", regexp.MustCompile(`(?m)^redis_(up|exporter_last_scrape_error).*$`).FindAllString(text, -1))
	}
	found := map[string]float64{}
	for _, m := range figure.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		must(t, err)
		found[strings.TrimPrefix(m[1], "key_evt_amqp_")] = value
	}
	return found
}

// Exporters split at ':', and at the end of the line.
func TestInfoValuesHoldNoColon(t *testing.T) {
	port, stop := silence(t)
	stop()
	r := start(t, options{port: port, silent: true})
	r.do("CONFIG", "SET", "key_evt_amqp.hostname", "[::1],127.0.0.1")
	r.do("SET", "a", "1")
	// A reason with addresses in it.
	r.until("last_error", func(v string) bool { return strings.Contains(v, "refused") })
	for _, line := range strings.Split(r.Info(ctx, "key_evt_amqp").Val(), "\r\n") {
		if line != "" && line[0] != '#' && strings.Count(line, ":") != 1 {
			t.Errorf("the line %q has not one ':'", line)
		}
	}
}

func TestFiguresReachTheExporter(t *testing.T) {
	r := start(t, options{})
	addr := exporter(t, r)
	r.sets("figures", 100)
	r.arrives(setBodies("figures", 100))
	r.balanced(0, 0)
	same := func() {
		t.Helper()
		got := figures(t, addr)
		info, err := r.ModuleInfo()
		must(t, err)
		for name, value := range info {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil || name == "oldest_event_ms" {
				continue // a text; or changes all the time
			}
			if figure, ok := got[name]; !ok || figure != number {
				t.Errorf("%s: the exporter has %v (%v), INFO %v", name, figure, ok, number)
			}
		}
		for _, state := range []string{"disabled", "idle", "connecting", "connected", "blocked", "backoff"} {
			want := map[bool]float64{true: 1}[state == info["state"]]
			if figure, ok := got["state_"+state]; !ok || figure != want {
				t.Errorf("state %s: the exporter's state_%s is %v (%v)", info["state"], state, figure, ok)
			}
		}
	}
	same()
	if got := figures(t, addr)["events_confirmed"]; got != 100 {
		t.Errorf("events_confirmed is %v, not 100", got)
	}

	// With the broker away, events in the list.
	r.do("key_evt_amqp.disconnect")
	r.sets("away", 10)
	r.until("fallback_length", is("10"))
	same()
	if got := figures(t, addr)["oldest_event_ms"]; got <= 0 {
		t.Errorf("oldest_event_ms is %v with events in the list", got)
	}

	// Unloaded, its figures go, and the rest stays.
	r.do("key_evt_amqp.connect")
	r.balanced(0, 0)
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	if got := figures(t, addr); len(got) != 0 {
		t.Errorf("the module is unloaded, and the exporter has %v", got)
	}
}

// aclRule finds the line of docs/monitoring/README.md that makes the
// exporter's user.
func aclRule(t *testing.T) []any {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/README.md")
	must(t, err)
	m := regexp.MustCompile(`(?m)^redis-cli (ACL SETUSER exporter .*)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the page has no ACL SETUSER exporter")
	}
	var args []any
	for _, word := range strings.Fields(string(m[1])) {
		args = append(args, strings.Trim(word, "'"))
	}
	return args
}

func TestExporterNeedsFewRights(t *testing.T) {
	r := start(t, options{})
	rule := aclRule(t)
	r.do(rule...)
	var password string
	for _, word := range rule {
		if after, ok := strings.CutPrefix(word.(string), ">"); ok {
			password = after
		}
	}
	addr := exporter(t, r, "-redis.user", "exporter", "-redis.password", password, "-config-command", "-")
	if got := figures(t, addr); got["version"] == 0 {
		t.Errorf("with the documented rights the exporter has %v", got)
	}
	// It must not read the broker's password.
	if got, err := r.Do(ctx, "ACL", "DRYRUN", "exporter", "CONFIG", "GET", "key_evt_amqp.password").Text(); err == nil && got == "OK" {
		t.Error("the exporter's user may read the broker's password")
	}
}

func TestAlertRules(t *testing.T) {
	command(t, "promtool", "check", "rules", "docs/monitoring/alerts.yml")
	command(t, "promtool", "test", "rules", "test/testdata/alerts_test.yml")

	// Each rule fires in one of the tests.
	rules, err := os.ReadFile("../docs/monitoring/alerts.yml")
	must(t, err)
	tests, err := os.ReadFile("testdata/alerts_test.yml")
	must(t, err)
	names := regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllSubmatch(rules, -1)
	if len(names) == 0 {
		t.Fatal("no rules")
	}
	for _, m := range names {
		fires := regexp.MustCompile(`alertname: ` + string(m[1]) + `\n +exp_alerts:`)
		if !fires.Match(tests) {
			t.Errorf("no test in which %s fires", m[1])
		}
	}
}

// dashboard is what we look at of Grafana's model.
type dashboard struct {
	Title      string
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ RefID, Expr string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/dashboard.json")
	must(t, err)
	must(t, json.Unmarshal(text, &d))
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return d
}

func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || p.Type == "" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d %q: type %q, %d targets, id seen: %v", p.ID, p.Title, p.Type, len(p.Targets), ids[p.ID])
		}
		ids[p.ID] = true
		if g := p.GridPos; g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("panel %q is at %+v; the grid is 24 wide", p.Title, g)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// A real Prometheus scrapes the real exporter: each expression of the
// dashboard and the alerts has data, and the alert for a lost link rises.
func TestFiguresReachPrometheus(t *testing.T) {
	r := start(t, options{})
	target := exporter(t, r)
	rules, err := filepath.Abs("../docs/monitoring/alerts.yml")
	must(t, err)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [%s]
scrape_configs:
  - job_name: redis
    static_configs:
      - targets: [%s]
`, rules, target), 0o600))
	port, err := servers.FreePort()
	must(t, err)
	base := "http://127.0.0.1:" + strconv.Itoa(port)
	prometheus, err := servers.StartTool(dir, "prometheus", "--config.file", config,
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", strings.TrimPrefix(base, "http://"))
	must(t, err)
	t.Cleanup(prometheus.Close)
	eventually(t, func() error {
		if err := prometheus.Alive(); err != nil {
			t.Fatal(err)
		}
		_, err := fetch(base + "/-/ready")
		return err
	})
	r.sets("prometheus", 50)
	r.arrives(setBodies("prometheus", 50))
	r.balanced(0, 0)

	known := figures(t, target)
	variables := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m")
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			for _, name := range named(target.Expr) {
				if _, ok := known[name]; !ok {
					t.Errorf("panel %q names %s, which the exporter does not have", p.Title, name)
				}
			}
			eventually(t, func() error {
				got, err := query(base, variables.Replace(target.Expr))
				if err == nil && len(got) == 0 {
					err = fmt.Errorf("panel %q: %s: no data", p.Title, target.Expr)
				}
				return err
			})
		}
	}
	text, err := os.ReadFile(rules)
	must(t, err)
	for _, name := range named(string(text)) {
		if _, ok := known[name]; !ok {
			t.Errorf("the alerts name %s, which the exporter does not have", name)
		}
	}
	eventually(t, func() error {
		got, err := query(base, `redis_script_values{key="key_evt_amqp_events_confirmed"}`)
		if err == nil && !slices.Equal(got, []string{"50"}) {
			err = fmt.Errorf("events_confirmed is %v in Prometheus, not 50", got)
		}
		return err
	})

	// No alert while all is well, one when the link is gone.
	alerts := func() ([]string, error) {
		var answer struct {
			Data struct {
				Alerts []struct{ Labels map[string]string }
			}
		}
		text, err := fetch(base + "/api/v1/alerts")
		if err == nil {
			err = json.Unmarshal([]byte(text), &answer)
		}
		var names []string
		for _, a := range answer.Data.Alerts {
			names = append(names, a.Labels["alertname"])
		}
		return names, err
	}
	got, err := alerts()
	must(t, err)
	if len(got) != 0 {
		t.Errorf("all is well, and there are alerts: %v", got)
	}
	r.do("key_evt_amqp.disconnect")
	eventually(t, func() error {
		got, err := alerts()
		if err == nil && !slices.Equal(got, []string{"KeyEvtAmqpDisconnected"}) {
			err = fmt.Errorf("after disconnect the alerts are %v", got)
		}
		return err
	})
}

// named lists our figures that an expression names; of a regular expression
// with alternatives, each.
func named(expr string) (names []string) {
	for _, m := range regexp.MustCompile(`key="key_evt_amqp_(\w+)"`).FindAllStringSubmatch(expr, -1) {
		names = append(names, m[1])
	}
	for _, m := range regexp.MustCompile(`key=~"key_evt_amqp_(\w*)\(([\w|]+)\)"`).FindAllStringSubmatch(expr, -1) {
		for _, end := range strings.Split(m[2], "|") {
			names = append(names, m[1]+end)
		}
	}
	return names
}

// query asks Prometheus for the values of an expression now.
func query(base, expr string) (values []string, err error) {
	text, err := fetch(base + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	for _, r := range answer.Data.Result {
		values = append(values, fmt.Sprint(r.Value[1]))
	}
	return values, nil
}
