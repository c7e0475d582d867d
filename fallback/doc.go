// SPDX-License-Identifier: BSD-3-Clause

// Package fallback is an event at rest, for Go: the record that it is in
// memory, in the fallback list and in a spool file ([Record]), and the reader of
// spool files ([SpoolReader]). It knows nothing of AMQP, and nothing of Redis's
// API.
//
// When events go into the list is decided on Redis's main thread (c/policy.c);
// package model proves that the real C code keeps to its rules.
package fallback
