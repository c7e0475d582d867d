package amqp

import "net"

// Encode writes messages as the codec of our own does, in frames of at most
// most bytes, on channel 1.
func Encode(to net.Conn, most int, cfg *Config, messages ...*Message) error {
	w := &wire{raw: newConn(to, to), channel: 1, most: most}
	for _, m := range messages {
		if err := w.publish(cfg, m); err != nil {
			return err
		}
	}
	return w.flush()
}
