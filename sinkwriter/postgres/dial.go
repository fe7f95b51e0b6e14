package postgres

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// closeTimeout bounds the cancel request of an abandoned connection, and then the wait for
// its end. The driver allows 15 s for both.
const closeTimeout = 2 * time.Second

// socketKey is the key of a connection's socket in the driver's custom data.
const socketKey = "tandem/socket"

// dialer returns a dialer of sockets that end when the server is unreachable.
func (o *options) dialer() *net.Dialer {
	keepAlive := o.keepAlive
	d := &net.Dialer{KeepAliveConfig: keepAlive}
	if !keepAlive.Enable {
		d.KeepAlive = -1
	}
	if o.userTimeout > 0 {
		d.Control = userTimeout(o.userTimeout)
	}
	return d
}

// limitClose makes an abandoned connection end within closeTimeout: a dial after the connection
// is established is a cancel request.
func limitClose(cfg *pgconn.Config) {
	dial, afterConnect := cfg.DialFunc, cfg.AfterConnect
	var established atomic.Bool
	var socket net.Conn
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if !established.Load() {
			c, err := dial(ctx, network, address)
			socket = c
			return c, err
		}
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		c, err := dial(ctx, network, address)
		if err == nil {
			err = c.SetDeadline(time.Now().Add(closeTimeout)) //nolint:forbidigo // a deadline of the network, by this process's clock
		}
		return c, err
	}
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		established.Store(true)
		conn.CustomData()[socketKey] = socket
		if afterConnect != nil {
			return afterConnect(ctx, conn)
		}
		return nil
	}
}

// endSoon closes the socket of a connection that is being closed, after closeTimeout: a frozen
// server never closes it.
func endSoon(conn *pgconn.PgConn) {
	socket, ok := conn.CustomData()[socketKey].(net.Conn)
	if !ok {
		return
	}
	end := time.AfterFunc(2*closeTimeout, func() { _ = socket.Close() })
	go func() {
		<-conn.CleanupDone()
		end.Stop()
	}()
}
