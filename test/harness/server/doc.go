// Package server starts real redis-server and RabbitMQ processes for tests and
// examples, and consumes from the broker. It knows nothing of package testing;
// package harness adds that.
//
// Every process listens on ports of 127.0.0.1 that are its own, keeps its files
// in a folder of its own, and is ended by its own pid. None survives us: the
// kernel kills it when we die, however we die.
//
//	process.go   one process, and the thread that starts them
//	port.go      ports that nobody else takes
//	redis.go     a redis-server;  info.go, logs.go: what it tells
//	broker.go    a RabbitMQ node with an epmd of its own
//	consumer.go  a queue, bound and consumed, duplicates set apart
package server
