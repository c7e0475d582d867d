// SPDX-License-Identifier: BSD-3-Clause

package c

// #cgo CFLAGS: -std=c11 -D_GNU_SOURCE -O2 -g -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter
// #cgo CFLAGS: -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
// #cgo LDFLAGS: -Wl,-z,relro -Wl,-z,now
// #cgo faults CFLAGS: -DKEA_FAULTS
// #include <stdlib.h>
// #include "kea.h"
import "C"

import (
	"errors"
	"unsafe"
)

// Settings are what the main thread needs of the settings.
type Settings struct {
	Classes               uint32 // classes of events, the server's own bits
	ListLimit             int64  // events in the fallback list, at most; 0 unlimited, < 0 none are stored
	BufferLimit           uint64 // bytes of events in memory before they go to the list
	Window                uint32 // events lent to the publisher, at most
	DatasetEvents         bool   // flushdb, flushall and swapdb are events
	Outbox                bool   // every event is in the list before the client has its reply
	ExpireOnTime          bool   // keys expire when they are due
	ExpireWatchLimit      uint64 // bytes for the keys watched
	Values                uint32 // NewValues, OldValues, both, or 0
	ValueLimit            int    // bytes of a value, at most
	ShutdownTimeoutMillis uint32 // how long SHUTDOWN may wait for confirms
	Masks                 []byte // compiled masks; empty: nothing is forwarded
	MasksCount            int
}

// Configure hands settings to the main thread's side. Main thread only. On
// error nothing has changed.
func Configure(s Settings) error {
	in := C.struct_kea_settings{
		classes:             C.uint32_t(s.Classes),
		list_limit:          C.int64_t(s.ListLimit),
		buffer_limit:        C.uint64_t(s.BufferLimit),
		window:              C.uint32_t(s.Window),
		dataset_events:      C.bool(s.DatasetEvents),
		outbox:              C.bool(s.Outbox),
		expire_on_time:      C.bool(s.ExpireOnTime),
		expire_watch_limit:  C.uint64_t(s.ExpireWatchLimit),
		values:              C.uint32_t(s.Values),
		value_limit:         C.size_t(s.ValueLimit),
		shutdown_timeout_ms: C.uint32_t(s.ShutdownTimeoutMillis),
		masks_len:           C.size_t(len(s.Masks)),
		masks_count:         C.uint64_t(s.MasksCount),
	}
	if len(s.Masks) > 0 {
		in.masks = C.CBytes(s.Masks)
		defer C.free(unsafe.Pointer(in.masks))
	}
	if wrong := C.kea_configure(&in); wrong != nil {
		return errors.New(C.GoString(wrong))
	}
	return nil
}

// What events carry of a key's value: [Settings].Values.
const (
	NewValues = C.KEA_VALUES_NEW
	OldValues = C.KEA_VALUES_OLD
)

// HasOldValues reports whether this server shows what a key held that goes. Main
// thread only.
func HasOldValues() bool { return bool(C.kea_old_values()) }

// SnapshotIDSize is the length of a snapshot's id.
const SnapshotIDSize = C.KEA_SNAPSHOT_ID

// SnapshotBegin begins a snapshot of the keys that the compiled masks match, with
// an id of [SnapshotIDSize] bytes. Main thread only.
func SnapshotBegin(id string, masks []byte) error {
	name, program := C.CString(id), C.CBytes(masks)
	defer C.free(unsafe.Pointer(name))
	defer C.free(program)
	if wrong := C.kea_snapshot_begin(name, program, C.size_t(len(masks))); wrong != nil {
		return errors.New(C.GoString(wrong))
	}
	return nil
}

// ActiveMaster reports whether this server is a master and not loading. Main
// thread only.
func ActiveMaster() bool { return bool(C.kea_is_active_master()) }

// SnapshotCancel ends the snapshot; false: none is under way. Main thread only.
func SnapshotCancel() bool { return bool(C.kea_snapshot_cancel()) }

// ServerClasses are the classes of events that this server knows, its own
// bits. Main thread only.
func ServerClasses() uint32 { return uint32(C.kea_server_classes()) }

// Getenv is the server's environment. Go's own view of it does not hold here: it
// points into memory that the server overwrites with its process title. Main
// thread only.
func Getenv(name string) (value string, ok bool) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	p := C.getenv(n)
	return C.GoString(p), p != nil
}

// Take takes the next run of records that the main thread lends: count
// records, each behind its length in 8 bytes and padded to 8. The memory is
// readable until [Settle] or [Rewind] for its last record. Publisher only.
func Take() (start unsafe.Pointer, count int, ok bool) {
	var span C.struct_kea_span
	if !C.kea_take(&span) {
		return nil, 0, false
	}
	return unsafe.Pointer(span.start), int(span.count), true
}

// Settle reports the n oldest unsettled records as settled. Publisher only.
func Settle(n int) { C.kea_settle(C.uint64_t(n)) }

// Rewind makes everything unsettled come again from [Take]. Publisher only.
func Rewind() { C.kea_rewind() }

// Sleep announces that the publisher is about to wait; false: do not wait.
// Publisher only.
func Sleep() bool { return bool(C.kea_sleep()) }

// EventFD is the descriptor that becomes readable when the publisher is woken;
// the caller closes it once the publisher has stopped. Main thread only.
func EventFD() int { return int(C.kea_event_fd()) }

// Away tells the main thread whether the session is down or blocked: events are stored then,
// and none are lent. Any thread.
func Away(away bool) { C.kea_away(C.bool(away)) }

// InfoSession sets what INFO shows of the session. Any thread.
func InfoSession(state int, host string, port int) {
	host = oneLine(host, maxInfo)
	p := C.CString(host)
	defer C.free(unsafe.Pointer(p))
	C.kea_info_session(C.int(state), p, C.size_t(len(host)), C.int(port))
}

// InfoError sets last_error, of the text what fits one line. Any thread.
func InfoError(text string) {
	text = oneLine(text, maxInfo)
	p := C.CString(text)
	defer C.free(unsafe.Pointer(p))
	C.kea_info_error(p, C.size_t(len(text)))
}

// Counters are the publisher's, absolute.
type Counters struct {
	Connects, ConnectFailures, Published, Confirmed, Returned, Nacked, Dropped, Inflight uint64
	Goroutines                                                                           int
}

// InfoCounters sets the publisher's counters in INFO. Any thread.
func InfoCounters(n Counters) {
	C.kea_info_counters(&C.struct_kea_counters{
		connects:         C.uint64_t(n.Connects),
		connect_failures: C.uint64_t(n.ConnectFailures),
		published:        C.uint64_t(n.Published),
		confirmed:        C.uint64_t(n.Confirmed),
		returned:         C.uint64_t(n.Returned),
		nacked:           C.uint64_t(n.Nacked),
		dropped:          C.uint64_t(n.Dropped),
		inflight:         C.uint64_t(n.Inflight),
		goroutines:       C.uint64_t(n.Goroutines),
	})
}

// Log writes one line to the server's log, of the text what fits it. level is
// debug, verbose, notice or warning. Any thread, between load and unload.
func Log(level, text string) {
	l, t := C.CString(level), C.CString(oneLine(text, maxLogLine))
	defer C.free(unsafe.Pointer(l))
	defer C.free(unsafe.Pointer(t))
	C.kea_log(l, t)
}

// nodeID is the length of a cluster node's id.
const nodeID = 40

// BusSelf is this node's id, empty without cluster mode. Main thread only.
func BusSelf() string {
	if id := C.kea_bus_self(); id != nil {
		return C.GoStringN(id, nodeID)
	}
	return ""
}

// BusSend sends a message to a node, or to all that are linked when target is
// empty; false: there is no link to it. Main thread only.
func BusSend(target string, message []byte) bool {
	to := C.CString(target)
	bytes := C.CBytes(message)
	defer C.free(unsafe.Pointer(to))
	defer C.free(bytes)
	if target == "" {
		return bool(C.kea_bus_send(nil, bytes, C.size_t(len(message))))
	}
	return bool(C.kea_bus_send(to, bytes, C.size_t(len(message))))
}

// BusNodes are the ids of the nodes known, this one's among them. Main thread
// only.
func BusNodes() []string {
	var n C.size_t
	list := C.kea_bus_nodes(&n)
	defer C.kea_bus_free_nodes(list)
	ids := make([]string, n)
	for i, id := range unsafe.Slice(list, n) {
		ids[i] = C.GoStringN(id, nodeID)
	}
	return ids
}

// InfoBus sets what INFO shows of the agreement on settings. Main thread only.
func InfoBus(version, ignored uint64) { C.kea_info_bus(C.uint64_t(version), C.uint64_t(ignored)) }

// Config is one setting as a module configuration.
type Config struct {
	Name     string
	Kind     ConfigKind
	Text     string // default of a text
	Number   int64  // default of a number, 0 or 1 of a bool
	Min, Max int64  // of a number
}

// ConfigKind tells how Redis checks and shows a configuration.
type ConfigKind int

const (
	Text   ConfigKind = C.KEA_CONFIG_TEXT
	Number ConfigKind = C.KEA_CONFIG_NUMBER
	Bool   ConfigKind = C.KEA_CONFIG_BOOL
)

// registerConfigs registers the table; the server copies names and defaults.
func registerConfigs(ctx unsafe.Pointer, table []Config) C.int {
	size := C.size_t(unsafe.Sizeof(C.struct_kea_config{}))
	mem := C.calloc(C.size_t(len(table)), size)
	defer C.free(mem)
	rows := unsafe.Slice((*C.struct_kea_config)(mem), len(table))
	for i, row := range table {
		rows[i].name = C.CString(row.Name)
		rows[i].text_default = C.CString(row.Text)
		defer C.free(unsafe.Pointer(rows[i].name))
		defer C.free(unsafe.Pointer(rows[i].text_default))
		rows[i].kind = C.int(row.Kind)
		rows[i].number_default = C.longlong(row.Number)
		rows[i].min = C.longlong(row.Min)
		rows[i].max = C.longlong(row.Max)
	}
	return C.kea_register_configs(ctx, (*C.struct_kea_config)(mem), C.size_t(len(table)))
}

// States of the session, as [InfoSession] takes them.
const (
	Disabled   = C.KEA_DISABLED
	Idle       = C.KEA_IDLE
	Connecting = C.KEA_CONNECTING
	Connected  = C.KEA_CONNECTED
	Blocked    = C.KEA_BLOCKED
	Backoff    = C.KEA_BACKOFF
)
