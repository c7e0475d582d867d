// Package fallback holds what the fallback list is made of and the rules for
// its use; it knows nothing of AMQP, and nothing of Redis's API.
//
// All undelivered events form one queue in two pieces: its head may be in a
// Redis list (the fallback list), its tail is in memory. An event is a record,
// the same bytes in both places ([Record]). The moves between the pieces are
// made on Redis's main thread (c/policy.c), by a plan that is drawn up here from
// the settings ([Draw]).
//
// What survives a crash of Redis: with outbox off, what was in the list; that
// is everything older than the last turn of the event loop while the broker is
// away. With outbox on, whatever Redis's own persistence keeps of the write
// that made the event.
package fallback
