// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Bounds of the setting hostname. Each host is dialed in turn, so more than some
// would only be a mistake.
const (
	maxHosts    = 64
	maxHostName = 253 // bytes, RFC 1035 without the root's dot
	maxLabel    = 63
)

type hostname struct {
	name string
	port int // 0: the setting port
}

// setHosts takes the brokers in order of preference: name, name:port, [v6],
// [v6]:port, separated by commas.
func (s *settings) setHosts(text string) error {
	if err := noURI(text); err != nil {
		return err
	}
	if n := strings.Count(text, ",") + 1; n > maxHosts {
		return fmt.Errorf("%d hosts, at most %d are taken", n, maxHosts)
	}
	var hosts []hostname
	for _, part := range strings.Split(text, ",") {
		h, err := parseHost(strings.Trim(part, " "))
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	s.hosts = hosts
	return nil
}

// noURI refuses what was meant for another client, and says how to say it here.
// It never repeats the text, which may hold a password.
func noURI(text string) error {
	switch {
	case strings.Contains(text, "://"):
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return errors.New("a URI is not taken: give hostname, port, username, password_file and vhost, each by itself")
		}
		return errors.New("a URI is not taken; say it as " + settingsOf(u))
	case strings.Contains(text, "@"):
		return errors.New("a host has no user: that is the setting username, and its password password_file")
	case strings.Contains(text, "/"):
		return errors.New("a host has no path: the virtual host is the setting vhost")
	}
	return nil
}

// settingsOf says in settings what a URI says.
func settingsOf(u *url.URL) string {
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	say := []string{"hostname " + clip(host)}
	if port := u.Port(); port != "" {
		say = append(say, "port "+clip(port))
	} else if u.Scheme == "amqps" {
		say = append(say, "port 5671")
	}
	if name := u.User.Username(); name != "" {
		say = append(say, "username "+clip(name))
	}
	if _, given := u.User.Password(); given {
		say = append(say, "the password in password_file")
	}
	if vhost := strings.TrimPrefix(u.Path, "/"); vhost != "" {
		say = append(say, "vhost "+clip(vhost))
	}
	if u.Scheme == "amqps" {
		say = append(say, "tls yes")
	}
	return strings.Join(say, ", ")
}

// clip quotes a text for an error, the beginning of a long one.
func clip(text string) string {
	const shown = 100
	if len(text) > shown {
		return fmt.Sprintf("%q…", text[:shown])
	}
	return fmt.Sprintf("%q", text)
}

// parseHost reads one host: a name, an IPv4 address or an IPv6 address in
// brackets, and maybe a port.
func parseHost(text string) (h hostname, err error) {
	host, port, withPort := text, "", false
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return h, fmt.Errorf("%s: a bracket is not closed", clip(text))
		}
		rest := text[end+1:]
		if rest != "" && rest[0] != ':' {
			return h, fmt.Errorf("%s: only a port may follow the brackets", clip(text))
		}
		host = text[1:end]
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return h, fmt.Errorf("%s: what is in brackets is not an IPv6 address", clip(text))
		}
		if rest != "" {
			port, withPort = rest[1:], true
		}
	} else {
		if ip, err := netip.ParseAddr(text); err == nil && ip.Is6() {
			return h, fmt.Errorf("%s: put an IPv6 address in brackets", clip(text))
		}
		host, port, withPort = strings.Cut(text, ":")
		if err := checkHostName(host); err != nil {
			return h, fmt.Errorf("%s: %w", clip(text), err)
		}
	}
	h.name = host
	if withPort {
		if h.port, err = strconv.Atoi(port); err != nil || h.port < 1 || h.port > 65535 || port[0] == '+' {
			return h, fmt.Errorf("%s: the port is not from 1 to 65535", clip(text))
		}
	}
	return h, nil
}

// checkHostName checks a name by the rules of RFC 1123, and an underscore, which
// containers' names have. A name that ends in a number is an IPv4 address or a
// mistake.
func checkHostName(name string) error {
	if name == "" {
		return errors.New("a host has no name")
	}
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c >= 0x80:
			return errors.New("write a name with letters beyond ASCII as the DNS has it (xn--…)")
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("a name has letters, digits, hyphens, dots and underscores, not %q", c)
		}
	}
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxHostName {
		return fmt.Errorf("%d bytes, a name has at most %d", len(name), maxHostName)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		switch {
		case label == "":
			return errors.New("nothing is between two dots of a name, or before its first")
		case len(label) > maxLabel:
			return fmt.Errorf("%d bytes between two dots of a name, at most %d are allowed", len(label), maxLabel)
		case label[0] == '-', label[len(label)-1] == '-':
			return errors.New("a part of a name begins or ends with a hyphen")
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		if _, err := netip.ParseAddr(name); err != nil {
			return errors.New("it ends in a number, and is not an IPv4 address")
		}
	}
	return nil
}
