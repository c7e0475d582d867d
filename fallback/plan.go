package fallback

// Settings are those that decide where events wait.
type Settings struct {
	ListLimit   int64 // fallback_storage_size: > 0 the most kept, 0 unlimited, < 0 store none
	BufferLimit int64 // bytes of events in memory before they go to the list
	MaxInflight int   // messages sent and not yet confirmed
	Outbox      bool  // every event is in the list before the client has its reply
}

// Plan is what the main thread works by at the end of each turn: while the
// link is up and memory holds less than BufferLimit, events wait in memory;
// else they go into the list, as many as ListLimit allows.
type Plan struct {
	ListLimit   int64
	BufferLimit uint64
	Window      uint32 // events lent to the publisher
	Outbox      bool
}

// Draw draws up the plan. The window is twice max_inflight, so that the
// publisher, when half of it is settled, still has a full flight to send
// before the main thread has lent it more.
func Draw(s Settings) Plan {
	return Plan{
		ListLimit:   s.ListLimit,
		BufferLimit: uint64(max(s.BufferLimit, 0)),
		Window:      uint32(2 * max(s.MaxInflight, 1)),
		Outbox:      s.Outbox,
	}
}
