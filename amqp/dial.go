package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	lib "github.com/rabbitmq/amqp091-go"
)

// dial makes a link to one host, within the connect timeout. stop ends it
// early.
func dial(ctx context.Context, cfg *Config, host Host) (l link, err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	password := ""
	if cfg.Password != nil && !cfg.External {
		if password, err = cfg.Password(); err != nil {
			return nil, err
		}
	}
	var config *tls.Config
	if cfg.TLS != nil {
		if config, err = cfg.TLS(); err != nil {
			return nil, err
		}
	}
	address := net.JoinHostPort(host.Name, strconv.Itoa(host.Port))
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	// Whatever hangs from here on, closing the socket ends it.
	guard := context.AfterFunc(ctx, func() { tcp.Close() })
	defer func() {
		guard()
		if err != nil {
			tcp.Close()
			if cause := ctx.Err(); errors.Is(cause, context.DeadlineExceeded) {
				err = fmt.Errorf("no answer from %s within %v", address, cfg.ConnectTimeout)
			}
		}
	}()
	stream := net.Conn(tcp)
	if config != nil {
		if config.ServerName == "" {
			config.ServerName = host.Name
		}
		secure := tls.Client(tcp, config)
		if err = secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		stream = secure
	}
	raw := newConn(stream, tcp)
	open := openLibrary
	if cfg.Codec == Own {
		open = openWire
	}
	if l, err = open(raw, cfg, password); err != nil {
		raw.Close()
		if refusal := raw.refusal(); refusal != nil {
			err = reason(refusal)
		}
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return l, nil
}

// credentialsRefused is for whoever we say we are.
func credentialsRefused(cfg *Config) error {
	if cfg.External {
		return errors.New("the broker refuses the certificate as the user's credential (ACCESS_REFUSED)")
	}
	return errors.New("the broker refuses the username or password (ACCESS_REFUSED)")
}

// reason makes the broker's word readable, and never shows a password.
func reason(err error) error {
	var answer *lib.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return errors.New(strings.TrimSpace(answer.Reason))
	}
	return plain(err)
}
