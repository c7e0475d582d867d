// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	lib "github.com/rabbitmq/amqp091-go"
)

// keyFold is what a consumer holds that follows a stream in format json: the keys of
// each database. It begins with the first `snapshot`.
type keyFold struct {
	begun bool
	ended []string // keys of snapshot_end
	dbs   map[int]map[string]bool
}

// folded folds messages, first arrivals in their order.
func folded(messages []lib.Delivery) (*keyFold, error) {
	f := &keyFold{dbs: map[int]map[string]bool{}}
	for _, m := range messages {
		if err := f.apply(m.Body); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Body, err)
		}
	}
	return f, nil
}

func (f *keyFold) db(n int) map[string]bool {
	if f.dbs[n] == nil {
		f.dbs[n] = map[string]bool{}
	}
	return f.dbs[n]
}

func (f *keyFold) apply(body []byte) error {
	var e struct {
		DB        int     `json:"db"`
		Event     string  `json:"event"`
		Key       *string `json:"key"`
		KeyBase64 string  `json:"key_base64"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	key := ""
	if e.Key != nil {
		key = *e.Key
	} else {
		bytes, err := base64.StdEncoding.DecodeString(e.KeyBase64)
		if err != nil {
			return err
		}
		key = string(bytes)
	}
	f.begun = f.begun || e.Event == "snapshot"
	if !f.begun {
		return nil
	}
	switch e.Event {
	case "snapshot_end":
		f.ended = append(f.ended, key)
	case "flushall":
		f.dbs = map[int]map[string]bool{}
	case "flushdb":
		delete(f.dbs, e.DB)
	case "swapdb":
		other, err := strconv.Atoi(key)
		if err != nil {
			return err
		}
		f.dbs[e.DB], f.dbs[other] = f.db(other), f.db(e.DB)
	case "del", "expired", "evicted", "rename_from", "move_from":
		delete(f.db(e.DB), key)
	case "hdel", "srem", "zrem", "zremrangebyscore", "zremrangebyrank", "zremrangebylex", "expire":
		// The key may be gone already, and `del` comes.
	default:
		f.db(e.DB)[key] = true
	}
	return nil
}

// equals compares the fold with what the server holds.
func (f *keyFold) equals(r *rig) error {
	held := 0
	for db := range 16 {
		want := map[string]bool{}
		conn := r.Conn()
		if err := conn.Select(ctx, db).Err(); err != nil {
			return err
		}
		keys, err := conn.Keys(ctx, "*").Result()
		_ = conn.Select(ctx, 0)
		conn.Close()
		if err != nil {
			return err
		}
		for _, key := range keys {
			want[key] = true
		}
		delete(want, "key_evt_amqp.fallback")
		held += len(want)
		if !maps.Equal(want, f.db(db)) {
			for key := range want {
				if !f.db(db)[key] {
					return fmt.Errorf("database %d: the fold lacks %q; it has %d keys, the server %d", db, key, len(f.db(db)), len(want))
				}
			}
			for key := range f.db(db) {
				if !want[key] {
					return fmt.Errorf("database %d: the fold has %q; it has %d keys, the server %d", db, key, len(f.db(db)), len(want))
				}
			}
		}
	}
	if held == 0 {
		return errors.New("the server holds nothing: there is nothing to compare")
	}
	return nil
}
