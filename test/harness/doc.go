// Package harness is what the end-to-end tests stand on: real redis-server and
// RabbitMQ processes, a consumer, a proxy that fails on demand, and the books
// that must balance in the end.
//
// A test says what it needs and states what must be true; whatever it started
// is ended when it ends:
//
//	broker := harness.SharedBroker(t)
//	consumer := broker.Consume("amq.direct", "my_key", harness.ConsumeOptions{})
//	redis := harness.NewRedis(t, harness.RedisOptions{
//		Module: harness.Module(t),
//		Args:   harness.Args{Events: "A", Port: broker.Port(), RoutingKey: "my_key"}.List(),
//	})
//	redis.Do("SET", "k", "v")
//	harness.Balance(t, redis, consumer, []harness.Event{{DB: 0, Event: "set", Key: "k"}})
//
// Methods of Redis, Broker and Consumer here fail the test instead of returning
// an error, so call them on the test's goroutine; the embedded type's methods
// of the same names, redis.Redis.Do for example, return it. After each test the
// server's log is searched for crashes.
//
// TestMain calls Main, which ends what tests share.
package harness
