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
// it), rejected (nack), refused with its exchange or for want of a right: it
// and all that follow are given back, and sent again after a back-off, the
// first one alone until it is taken; too large for the broker, found by sending
// one by one: it is passed over and counted; unknown, the link was lost first:
// sent again, so consumers must tolerate duplicates.
//
// What speaks AMQP is behind an interface, link: amqp091-go, or a codec of our
// own that allocates nothing for a message (wire). The library's own recovery is
// not used (it loses unconfirmed messages without a word), nor its read
// deadlines (see conn).
package amqp
