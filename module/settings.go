// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// settings are all that a user can set, checked. Every value is also kept as
// the text or number that the user gave, by the setting's name: that is what
// CONFIG GET shows.
type settings struct {
	texts   map[string]string
	numbers map[string]int64

	events events
	hosts  []hostname
	masks  []keymask.Mask
	all    bool // ALL among the masks
}

// setting is one row of the table that everything is made of: load arguments,
// commands, configurations, the checks of each.
type setting struct {
	name       string
	kind       c.ConfigKind
	text       string // default of a text
	number     int64  // default of a number or bool
	min, max   int64
	longest    int                                  // bytes of a text; shown and copied, whatever it is checked for
	check      func(s *settings, text string) error // of a text; nil: any
	positional bool                                 // an argument of section 1, in the table's order
}

// table lists the settings, the eleven arguments first and in their order.
var table = []setting{
	{name: "events", text: "xe", longest: maxWord, check: (*settings).setEvents, positional: true},
	{name: "hostname", text: "127.0.0.1", longest: maxHostsText, check: (*settings).setHosts, positional: true},
	{name: "port", kind: c.Number, number: 5672, min: 1, max: 65535, positional: true},
	{name: "username", text: "guest", longest: maxShortText, positional: true},
	{name: "password", text: "guest", longest: maxPassword, positional: true},
	{name: "heartbeat", kind: c.Number, number: 30, min: 0, max: 65535, positional: true},
	{name: "exchange_name", text: "amq.direct", longest: maxShortText, positional: true},
	{name: "routing_key", text: "redis_keyspace_events", longest: maxShortText, positional: true},
	{name: "delivery_mode", kind: c.Number, number: 1, min: 1, max: 2, positional: true},
	{name: "fallback_storage_size", kind: c.Number, number: 10000000, min: math.MinInt64, max: math.MaxInt64, positional: true},
	{name: "key_mask", longest: maxMaskLine, check: (*settings).setMaskLine, positional: true},

	{name: "vhost", text: "/", longest: maxShortText},
	{name: "password_file", longest: maxPath, check: passwordFile},
	{name: "format", text: "plain", longest: maxWord, check: formatName},
	{name: "value", text: "none", longest: maxWord, check: valueName},
	{name: "value_limit", kind: c.Number, number: 64 << 10, min: 1, max: 16 << 20},
	{name: "tls", kind: c.Bool, number: 0, max: 1},
	{name: "tls_ca_cert_file", longest: maxPath, check: certificatesFile},
	{name: "tls_cert_file", longest: maxPath, check: certificatesFile},
	{name: "tls_key_file", longest: maxPath, check: keyFile},
	{name: "tls_server_name", longest: maxShortText, check: serverName},
	{name: "tls_verify", kind: c.Bool, number: 1, max: 1},
	{name: "connect_timeout", kind: c.Number, number: 5000, min: 1, max: 600000},
	{name: "reconnect_delay_max", kind: c.Number, number: 10000, min: 100, max: 3600000},
	{name: "max_inflight", kind: c.Number, number: 2048, min: 1, max: 5000},
	{name: "buffer_limit", kind: c.Number, number: 64 << 20, min: 64 << 10, max: 1 << 40},
	{name: "outbox", kind: c.Bool, number: 0, max: 1},
	{name: "expire_on_time", kind: c.Bool, number: 0, max: 1},
	{name: "expire_watch_limit", kind: c.Number, number: 1 << 30, min: 1 << 20, max: 1 << 40},
	{name: "shutdown_timeout", kind: c.Number, number: 2000, min: 0, max: 600000},
	{name: "mandatory", kind: c.Bool, number: 1, max: 1},
	{name: "dataset_events", kind: c.Bool, number: 0, max: 1},
}

// Most bytes of texts. They are there so that no text costs more than it is
// worth before it is refused, and all together fit a message on the cluster bus.
const (
	maxShortText = 255     // AMQP's short strings
	maxPassword  = 8 << 10 // a token may be long; the broker's first frames are shorter still
	maxPath      = 4095    // Linux's
	maxWord      = 64
	maxNumber    = 32 // digits of a number, as a user types it
	maxHostsText = 20000
	maxMaskLine  = 5 << 20 // masks of keymask.MaxTotal bytes, quoted
)

// Rows of the table by position, and where the masks begin.
const (
	firstOfCommands = 1 // commands begin with hostname
	sizePosition    = 9
	maskPosition    = 10
)

// lookup finds a setting, nil when there is none of that name.
func lookup(name string) *setting {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func find(name string) *setting {
	row := lookup(name)
	if row == nil {
		panic("no setting " + name)
	}
	return row
}

// defaults returns the settings when nothing is given.
func defaults() *settings {
	s := &settings{texts: map[string]string{}, numbers: map[string]int64{}}
	for i := range table {
		row := &table[i]
		if row.kind == c.Text {
			if err := s.setText(row, row.text); err != nil {
				panic(err)
			}
		} else {
			s.numbers[row.name] = row.number
		}
	}
	return s
}

// clone copies the settings, so that a change can be tried and thrown away.
func (s *settings) clone() *settings {
	t := *s
	t.texts, t.numbers = map[string]string{}, map[string]int64{}
	for k, v := range s.texts {
		t.texts[k] = v
	}
	for k, v := range s.numbers {
		t.numbers[k] = v
	}
	return &t
}

func (s *settings) setText(row *setting, text string) error {
	if len(text) > row.longest {
		return fmt.Errorf("%s: it has %d bytes, at most %d are taken", row.name, len(text), row.longest)
	}
	if row.check != nil {
		if err := row.check(s, text); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	s.texts[row.name] = text
	return nil
}

func (s *settings) setNumber(row *setting, n int64) error {
	if n < row.min || n > row.max {
		return fmt.Errorf("%s: %d is not from %d to %d", row.name, n, row.min, row.max)
	}
	s.numbers[row.name] = n
	return nil
}

// set takes a value as the user typed it.
func (s *settings) set(row *setting, text string) error {
	if row.kind == c.Text {
		return s.setText(row, text)
	}
	n, err := strconv.ParseInt(text[:min(len(text), maxNumber)], 10, 64)
	if err != nil || len(text) > maxNumber {
		return fmt.Errorf("%s: %.32q is not an integer from %d to %d", row.name, text, row.min, row.max)
	}
	return s.setNumber(row, n)
}

// setArguments takes arguments by position, the first of them the table's row
// first; those left out keep their value, except the masks when they begin
// with first. It returns the names of the settings given.
func (s *settings) setArguments(first int, args []string) (names []string, err error) {
	for i := 0; i < len(args) && first+i < maskPosition; i++ {
		row := &table[first+i]
		if err := s.set(row, args[i]); err != nil {
			return nil, err
		}
		names = append(names, row.name)
	}
	if masks := maskPosition - first; len(args) > masks || masks == 0 {
		if err := s.setMasks(args[masks:]); err != nil {
			return nil, err
		}
		names = append(names, table[maskPosition].name)
	}
	return names, nil
}

// ---- masks

// maxMasks: with each of them an event costs more, and a list of masks that is
// longer was made by a mistake. docs/reference.md says what a mask costs.
const maxMasks = 100_000

// boundMasks refuses masks that are too many, or too long, before they are parsed.
func boundMasks(texts []string) error {
	if len(texts) > maxMasks {
		return fmt.Errorf("key_mask: %d masks, at most %d are taken", len(texts), maxMasks)
	}
	total := 0
	for _, t := range texts {
		total += len(t)
	}
	if total > keymask.MaxTotal {
		return fmt.Errorf("key_mask: masks of %d bytes together, at most %d are taken", total, keymask.MaxTotal)
	}
	return nil
}

// setMasks replaces all masks.
func (s *settings) setMasks(texts []string) error {
	if err := boundMasks(texts); err != nil {
		return err
	}
	raw := make([][]byte, len(texts))
	for i, t := range texts {
		raw[i] = []byte(t)
	}
	masks, all, err := keymask.ParseList(raw)
	if err != nil {
		return fmt.Errorf("key_mask: %w", err)
	}
	s.masks, s.all = masks, all
	s.texts["key_mask"] = joinQuoted(s.maskTexts())
	return nil
}

// addMasks adds to those there are.
func (s *settings) addMasks(texts []string) error {
	return s.setMasks(append(s.maskTexts(), texts...))
}

// maskTexts are the masks as the user wrote them.
func (s *settings) maskTexts() []string {
	if s.all {
		return []string{"ALL"}
	}
	texts := make([]string, len(s.masks))
	for i, m := range s.masks {
		texts[i] = m.String()
	}
	return texts
}

// setMaskLine takes the masks as one text, in redis.conf's own quoting.
func (s *settings) setMaskLine(line string) error {
	texts, err := splitQuoted(line, maxMasks)
	if err != nil {
		return err
	}
	if err := s.setMasks(texts); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "key_mask: "))
	}
	return nil
}

// compiled returns the masks for C, and how many there are.
func (s *settings) compiled() ([]byte, int, error) {
	if len(s.masks) == 0 {
		return nil, 0, nil
	}
	set, err := keymask.Compile(s.masks...)
	if err != nil {
		return nil, 0, fmt.Errorf("key_mask: %w", err)
	}
	return set.Program(), len(s.masks), nil
}

// ---- checks of texts

func passwordFile(_ *settings, path string) error {
	if path == "" {
		return nil
	}
	_, err := readPassword(path)
	return err
}

func (s *settings) setEvents(text string) error {
	e, err := parseEvents(text, serverClasses)
	if err != nil {
		return err
	}
	s.events = e
	return nil
}

// ---- what the publisher gets

// password is read at each connection, so that the file can be rotated.
func (s *settings) password() (string, error) {
	path := s.texts["password_file"]
	if path == "" {
		return s.texts["password"], nil
	}
	password, err := readPassword(path)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return password, nil
}

// maxPasswordFile bounds what is read: only the first line counts.
const maxPasswordFile = 64 << 10

func readPassword(path string) (string, error) {
	text, err := readFile(path, maxPasswordFile)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(line) > maxPassword {
		return "", fmt.Errorf("the first line of %s has %d bytes, at most %d are taken", path, len(line), maxPassword)
	}
	return line, nil
}

func (s *settings) brokers() []amqp.Host {
	hosts := make([]amqp.Host, len(s.hosts))
	for i, h := range s.hosts {
		hosts[i] = amqp.Host{Name: h.name, Port: h.port}
		if h.port == 0 {
			hosts[i].Port = int(s.numbers["port"])
		}
	}
	return hosts
}
