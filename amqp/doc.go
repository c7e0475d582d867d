// SPDX-License-Identifier: BSD-3-Clause

// Package amqp publishes messages to RabbitMQ (AMQP 0-9-1), in order, each at
// least once. It knows nothing of Redis.
//
// A [Publisher] is one goroutine that owns one connection with one channel: a
// session. A lost session is thrown away whole, and a new one starts from the
// first message that the broker has not confirmed.
//
//	idle ──a message, or Connect──▶ connecting ──▶ connected ◀──▶ blocked
//	                                  ▲   │            │             │
//	                                  │   └─failure─▶ backoff ◀─lost─┘
//	                                  └──time is up─────┘
//	any ──Disconnect──▶ disabled ──Connect──▶ connecting
//
// Outcomes of a message: confirmed, it is settled; returned (no queue took
// it), rejected (nack), refused with its exchange or for want of a right: the
// source is rewound to it, and it is sent again after a back-off, alone until it
// is taken; too large for the broker, found by sending one by one: it is dropped
// and counted; unknown, the connection was lost first: sent again, so consumers
// must tolerate duplicates.
//
// amqp091-go speaks AMQP. Messages and what the broker says of them bypass it,
// in the network connection that we give it. We use neither its own recovery (it
// loses unconfirmed messages without a word) nor its read deadlines.
//
// A message's way through the files:
//
//	publisher   the goroutine: when to connect, and what follows a failure
//	connecting  the hosts, one after the other, and the back-off
//	session     one connection's life: send, take in, wait
//	flight      what was taken and is not settled: pure
//	pace        when to linger
//	connection  what a session needs of a connection; dial
//	encode      a message as bytes, made of frame's
//	conn        the net.Conn between the network and the library
//	inbound     what the broker sends: for the library, or for us
//	confirms    answers put into order; returns: messages that come back
//	replies     what is handed over to the publisher's goroutine
package amqp
