// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"strings"
	"testing"
)

func TestHostsThatAreTaken(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("a", 61)
	for _, test := range []struct {
		text string
		want []hostname
	}{
		{"rabbit", []hostname{{"rabbit", 0}}},
		{"rabbit1, rabbit2:5673 ,[::1]", []hostname{{"rabbit1", 0}, {"rabbit2", 5673}, {"::1", 0}}},
		{"[fe80::1%eth0]:5672", []hostname{{"fe80::1%eth0", 5672}}},
		{"[::ffff:10.0.0.1]", []hostname{{"::ffff:10.0.0.1", 0}}},
		{"127.0.0.1:1", []hostname{{"127.0.0.1", 1}}},
		{"my_stack-rabbit_1", []hostname{{"my_stack-rabbit_1", 0}}},
		{"rabbit.example.org.", []hostname{{"rabbit.example.org.", 0}}},
		{"xn--bcher-kva.example:65535", []hostname{{"xn--bcher-kva.example", 65535}}},
		{"3com", []hostname{{"3com", 0}}},
		{long, []hostname{{long, 0}}},
		{strings.Repeat("a,", 63) + "a", nil},
	} {
		s := defaults()
		err := s.set(find("hostname"), test.text)
		if err != nil {
			t.Errorf("%.60q: %v", test.text, err)
			continue
		}
		for i := range test.want {
			if s.hosts[i] != test.want[i] {
				t.Errorf("%q: got %+v, want %+v", test.text, s.hosts, test.want)
				break
			}
		}
	}
}

func TestHostsThatAreRefused(t *testing.T) {
	for _, test := range []struct{ text, says string }{
		{"", "no name"}, {"a,,b", "no name"}, {",", "no name"}, {":5672", "no name"}, {" ", "no name"},
		{"a:", "port"}, {"a:0", "port"}, {"a:65536", "port"}, {"a:+5", "port"}, {"a:5672x", "port"}, {"a:b:c", "port"}, {"[::1]:", "port"},
		{"::1", "brackets"}, {"fe80::1%eth0", "brackets"}, {"[::1", "bracket is not closed"}, {"[::1]x", "brackets"},
		{"[rabbit]", "not an IPv6 address"}, {"[127.0.0.1]", "not an IPv6 address"}, {"[]", "not an IPv6 address"},
		{"a b", "letters"}, {"a\tb", "letters"}, {"a\x00", "letters"}, {"\"rabbit\"", "letters"}, {"rab*bit", "letters"}, {"rabbit;rabbit2", "letters"},
		{"a\nb", "letters"}, {"bücher.example", "xn--"}, {"\xff", "xn--"},
		{"a..b", "between two dots"}, {".a", "before its first"}, {".", "before its first"}, {"-a", "hyphen"}, {"a-.b", "hyphen"},
		{strings.Repeat("a", 64), "at most 63"}, {strings.Repeat("a.", 150), "at most 253"},
		{"256.1.1.1", "IPv4"}, {"1.2.3", "IPv4"}, {"10", "IPv4"}, {"rabbit.1", "IPv4"}, {"127.0.0.01", "IPv4"},
		{"rabbit/vhost", "setting vhost"}, {"guest@rabbit", "setting username"}, {"guest:secret@rabbit:5672", "setting username"},
		{"amqp://guest:secret@rabbit:5673/%2f", `hostname "rabbit", port "5673", username "guest", the password in password_file, vhost "/"`},
		{"amqp://rabbit", `hostname "rabbit"`},
		{"amqps://u@[::1]/orders", `hostname "[::1]", port 5671, username "u", vhost "orders", tls yes`},
		{"redis://:secret@cache:6379", `hostname "cache", port "6379", the password in password_file`},
		{"amqp://guest:sec%zzret@rabbit", "a URI is not taken"},
		{"rabbit1,amqp://guest:secret@rabbit2", "a URI is not taken"},
		{"amqp://", "a URI is not taken"},
		{strings.Repeat("a,", 64) + "a", "65 hosts"},
		{strings.Repeat("a", 20000), "20000 bytes"},
	} {
		s := defaults()
		err := s.set(find("hostname"), test.text)
		switch {
		case err == nil:
			t.Errorf("%.60q is taken as %+v", test.text, s.hosts)
		case !strings.HasPrefix(err.Error(), "hostname: ") || !strings.Contains(err.Error(), test.says):
			t.Errorf("%.60q: %q does not say %q", test.text, err, test.says)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("%.60q: the password is in %q", test.text, err)
		case len(err.Error()) > 400:
			t.Errorf("%.60q: the error has %d bytes", test.text, len(err.Error()))
		}
		if s.texts["hostname"] != "127.0.0.1" || len(s.hosts) != 1 {
			t.Errorf("%.60q: it has changed the settings", test.text)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add("rabbit1,rabbit2:5673,[::1]")
	f.Add("amqp://guest:guest@rabbit:5672/%2f")
	f.Fuzz(func(t *testing.T, text string) {
		s := defaults()
		if s.set(find("hostname"), text) != nil {
			return
		}
		for _, h := range s.hosts {
			if h.name == "" || len(h.name) > 300 || strings.ContainsAny(h.name, " /@\n\x00[]") || h.port < 0 || h.port > 65535 {
				t.Errorf("%q is taken as %+v", text, s.hosts)
			}
		}
	})
}
