// SPDX-License-Identifier: BSD-3-Clause

// Package model holds no code, only a test: the queue of package fallback as a
// property. The main thread's real code (c/) runs in a small Redis in memory
// (c/test/flow_driver.c); beside it runs a reference, which is a plain queue of
// event ids; what happens is drawn at random: captures, turns, the publisher's
// and the broker's steps, lost sessions, settings, a guarded or foreign
// dataset, other people's edits of the list, shutdowns, and kills at every
// step that c/fault.h names.
package model
