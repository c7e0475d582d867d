// SPDX-License-Identifier: BSD-3-Clause

//go:build faults

package c

// #include <stdlib.h>
import "C"
import (
	"os"
	"unsafe"
)

// redis-server writes its process title over the environment that Go's runtime
// looks at; what C finds is a copy.
func init() {
	name := C.CString("KEA_FAULT")
	os.Setenv("KEA_FAULT", C.GoString(C.getenv(name)))
	C.free(unsafe.Pointer(name))
}
