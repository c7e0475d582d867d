// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"strings"
)

// events is what argument 1 asks for: classes of event, and the views in
// which they are sent.
type events struct {
	classes  uint32 // the server's bits
	keyspace bool   // K: a message as Redis's keyspace channel has it
	keyevent bool   // E: a message as Redis's keyevent channel has it
}

// A class's letter is the one that Redis uses in notify-keyspace-events; the
// bits are those of its module API.
var classes = []struct {
	letter byte
	bit    uint32
	newer  bool // not in 7.0: only where the server has it
}{
	{'g', 1 << 2, false}, {'$', 1 << 3, false}, {'l', 1 << 4, false}, {'s', 1 << 5, false},
	{'h', 1 << 6, false}, {'z', 1 << 7, false}, {'x', 1 << 8, false}, {'e', 1 << 9, false},
	{'t', 1 << 10, false}, {'m', 1 << 11, false}, {'d', 1 << 13, false}, {'n', 1 << 14, false},
	{'o', 1 << 15, true}, {'c', 1 << 16, true},
}

// allClasses is Redis's A: everything but m, n and what came after 7.0.
const allClasses = "g$lshzxetd"

// serverClasses are the classes that the server knows; all, until it is asked.
var serverClasses = ^uint32(0)

func parseEvents(text string, known uint32) (e events, err error) {
	for i := 0; i < len(text); i++ {
		switch letter := text[i]; letter {
		case 'K':
			e.keyspace = true
		case 'E':
			e.keyevent = true
		case 'A':
			for _, class := range classes {
				if strings.IndexByte(allClasses, class.letter) >= 0 {
					e.classes |= class.bit
				}
			}
		default:
			bit, err := classBit(letter, known)
			if err != nil {
				return events{}, err
			}
			e.classes |= bit
		}
	}
	if e.classes == 0 {
		return events{}, errors.New("no class of event; give at least one of g$lshztdxemn or A")
	}
	return e, nil
}

func classBit(letter byte, known uint32) (uint32, error) {
	for _, class := range classes {
		if class.letter != letter {
			continue
		}
		if class.newer && known&class.bit == 0 {
			return 0, fmt.Errorf("class %q is not known to this server", letter)
		}
		return class.bit, nil
	}
	return 0, fmt.Errorf("%q is not a class of event; known are g$lshztdxemn, A, K and E", letter)
}
