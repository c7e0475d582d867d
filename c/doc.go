// SPDX-License-Identifier: BSD-3-Clause

// Package c is what runs on Redis's main thread, and the few functions through
// which Go and it meet. [Module] states what Go does, kea.h what C promises. Its
// files, in the order in which one might read them:
//
//	an event's way  hook (captures it), extras and value (what the key holds), record (its bytes), queue (memory), loop (the end of a turn), lent, publisher (to Go and back)
//	what waits      flow (the queue in its pieces), mirror (our picture of the list), policy (a turn's rules),
//	                list (the Redis list), demoted (what a replica still has), spool (a file), owner and spooldir (whose it is), shutdown
//	time            watch, deadlines, slab (when keys are due), learn, looks (from what that is known), expire (touches them), alarm, lag
//	the keyspace    scan (all keys, in slices), snapshot
//	cluster         home (lists' names), slots (whose is a key), cluster (which list a turn works with), bus (messages)
//	the module      module (load, unload), needs (of the server), events (of the server), dataset (what becomes of whole databases), commands, peek, args, config, info, match (key masks)
//	the process     crash, slack
//	borders         kea.h and bridge.go (Go calls C), export.go (C calls Go), redisapi (the server), fault (for tests)
package c
