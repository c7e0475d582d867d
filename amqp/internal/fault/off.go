// SPDX-License-Identifier: BSD-3-Clause

//go:build !faults

// Package fault names the steps of an event's way at which a test ends the
// server; c/fault.h is the same for C. Without the build tag faults it is
// nothing at all.
package fault

// Point marks a step. The name marks one place; test/fault_points_test.go has a
// case for each. Any goroutine.
func Point(name string) {}
