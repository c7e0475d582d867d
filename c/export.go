// SPDX-License-Identifier: BSD-3-Clause

package c

// #include <stdlib.h>
// #include <string.h>
// #include "kea.h"
import "C"

import (
	"fmt"
	"runtime/debug"
	"strings"
	"unsafe"
)

// Module is what Go does when the server asks. Every method is called on
// Redis's main thread and must not wait for a network.
type Module interface {
	// Load checks the load arguments; Configs tells the configurations to
	// register. Start follows once the configurations have their values. An
	// error of Load or Start refuses the load.
	Load(args []string) error
	Configs() []Config
	Start() error
	// Stop ends every goroutine and closes the connection. Also called when
	// a load was refused half-way.
	Stop()

	// Command runs one of the commands, named without its prefix. For
	// connect it only changes the settings: Connect follows.
	Command(name string, args []string) error
	// Snapshot begins a snapshot of what the masks match, and returns its id.
	Snapshot(masks []string) (id string, err error)
	// Connect starts connecting and calls done once, on any goroutine; done
	// is nil when nobody waits.
	Connect(done func(error))

	// BusTick is called once a second in cluster mode, BusReceive for each
	// message on the cluster bus, which may be anybody's, and is gone when
	// it returns.
	BusTick()
	BusReceive(sender string, message []byte)

	ConfigText(name string) string
	ConfigNumber(name string) int64
	ConfigSetText(name, value string) error
	ConfigSetNumber(name string, value int64) error
	// ConfigApply puts what the ConfigSet functions staged into effect, all
	// or nothing.
	ConfigApply() error
}

// Implementation is the module; package main sets it before the server can
// call, in its init.
var Implementation Module

// guard makes an error of a panic: one that crossed into C would end the
// server.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
			Log("warning", fmt.Sprintf("panic: %v", p))
			for i, line := range strings.Split(string(debug.Stack()), "\n") {
				if i < maxStack {
					Log("warning", line)
				}
			}
		}
	}()
	return f()
}

// maxStack bounds the lines of a stack in the log.
const maxStack = 60

// report returns an error's text in C's memory, to be freed there; nil for nil.
// It is made fit for a RESP error: one line.
func report(prefix string, err error) *C.char {
	if err == nil {
		return nil
	}
	return C.CString(prefix + oneLine(err.Error(), maxReply))
}

func arguments(args *C.struct_kea_arg, n C.int) []string {
	out := make([]string, n)
	for i, a := range unsafe.Slice(args, int(n)) {
		out[i] = C.GoStringN(a.bytes, C.int(a.len))
	}
	return out
}

//export keaGoLoad
func keaGoLoad(args *C.struct_kea_arg, n C.int) *C.char {
	return report("", guard(func() error { return Implementation.Load(arguments(args, n)) }))
}

//export keaGoRegister
func keaGoRegister(ctx unsafe.Pointer) (rc C.int) {
	rc = 1
	if err := guard(func() error { rc = registerConfigs(ctx, Implementation.Configs()); return nil }); err != nil {
		return 1
	}
	return rc
}

//export keaGoStart
func keaGoStart() *C.char {
	return report("", guard(Implementation.Start))
}

//export keaGoStop
func keaGoStop() {
	_ = guard(func() error { Implementation.Stop(); return nil })
}

//export keaGoCommand
func keaGoCommand(name *C.char, args *C.struct_kea_arg, n C.int) *C.char {
	return report("ERR ", guard(func() error {
		return Implementation.Command(C.GoString(name), arguments(args, n))
	}))
}

// keaGoSnapshot writes the id, KEA_SNAPSHOT_ID bytes.
//
//export keaGoSnapshot
func keaGoSnapshot(args *C.struct_kea_arg, n C.int, id *C.char) *C.char {
	return report("ERR ", guard(func() error {
		text, err := Implementation.Snapshot(arguments(args, n))
		copy(unsafe.Slice((*byte)(unsafe.Pointer(id)), SnapshotIDSize), text)
		return err
	}))
}

//export keaGoConnect
func keaGoConnect(client unsafe.Pointer) {
	var done func(error)
	if client != nil {
		done = func(err error) {
			text := report("ERR ", err)
			C.kea_unblock(client, text)
			C.free(unsafe.Pointer(text))
		}
	}
	if err := guard(func() error { Implementation.Connect(done); return nil }); err != nil && done != nil {
		done(err)
	}
}

//export keaGoBusTick
func keaGoBusTick() {
	_ = guard(func() error { Implementation.BusTick(); return nil })
}

//export keaGoBusReceive
func keaGoBusReceive(sender, bytes *C.char, n C.size_t) {
	_ = guard(func() error {
		Implementation.BusReceive(C.GoStringN(sender, nodeID), unsafe.Slice((*byte)(unsafe.Pointer(bytes)), int(n)))
		return nil
	})
}

//export keaGoConfigText
func keaGoConfigText(name *C.char, length *C.size_t) *C.char {
	var text string
	_ = guard(func() error { text = Implementation.ConfigText(C.GoString(name)); return nil })
	*length = C.size_t(len(text))
	return (*C.char)(C.CBytes([]byte(text)))
}

//export keaGoConfigNumber
func keaGoConfigNumber(name *C.char) (n C.longlong) {
	_ = guard(func() error { n = C.longlong(Implementation.ConfigNumber(C.GoString(name))); return nil })
	return n
}

//export keaGoConfigSetText
func keaGoConfigSetText(name, value *C.char, length C.size_t) *C.char {
	return report("", guard(func() error {
		return Implementation.ConfigSetText(C.GoString(name), C.GoStringN(value, C.int(length)))
	}))
}

//export keaGoConfigSetNumber
func keaGoConfigSetNumber(name *C.char, value C.longlong) *C.char {
	return report("", guard(func() error {
		return Implementation.ConfigSetNumber(C.GoString(name), int64(value))
	}))
}

//export keaGoConfigApply
func keaGoConfigApply() *C.char {
	return report("", guard(Implementation.ConfigApply))
}
