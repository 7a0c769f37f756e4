package backend

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
)

// connection counts the connections to a backend's socket and knows whether the
// last one is open. What a backend listed is true of the connection that it was
// listed on: the next one may lead to a runtime that was restarted.
type connection struct {
	made int // Connections so far; the last one's number.
	open bool
}

// next is the number of the connection that a call made now goes over.
func (c connection) next() int {
	if c.open {
		return c.made
	}
	return c.made + 1
}

// dialer connects to the backend's socket and tells the backend of each
// connection's beginning and end. Watching gRPC's connectivity instead would
// miss a restart that is over before somebody looks.
func (b *Backend) dialer(path string) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		number := b.connected()
		return &watchedConn{Conn: conn, closed: sync.OnceFunc(func() { b.disconnected(number) })}, nil
	})
}

// watchedConn tells of its end.
type watchedConn struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

func (b *Backend) connected() (number int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.suspect(errConnectionLost) // What is known was listed on another one.
	b.connection.made++
	b.connection.open = true
	return b.connection.made
}

func (b *Backend) disconnected(number int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if number != b.connection.made {
		return // There is a newer one already.
	}
	b.connection.open = false
	b.suspect(errConnectionLost)
}
