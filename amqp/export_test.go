// SPDX-License-Identifier: BSD-3-Clause

package amqp

import "net"

// Encode writes messages as they are sent, in frames of at most frameMax bytes,
// on channel 1.
func Encode(to net.Conn, frameMax int, cfg *Config, messages ...*Message) error {
	c := &amqpConnection{channel: 1}
	c.conn = newConn(to, to, 1, &c.sent)
	c.in.frameMax = frameMax
	for _, m := range messages {
		if err := c.publish(cfg, m); err != nil {
			return err
		}
	}
	return c.flush()
}
