package role

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Relay copies bytes between the socket listen and the socket upstream until ctx
// ends: the least that anything between a kubelet and its runtime can cost.
func Relay(ctx context.Context, listen, upstream string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", listen)
	if err != nil {
		return fmt.Errorf("listen for the relay: %w", err)
	}
	// Closing a listener or a connection is how a blocked call on it is ended; that
	// it was closed already is no failure.
	defer context.AfterFunc(ctx, func() { closeQuietly(listener) })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		down, err := listener.Accept()
		if ctx.Err() != nil {
			return nil // The listener was closed because the relay is to end.
		}
		if err != nil {
			return fmt.Errorf("accept for the relay: %w", err)
		}
		wg.Go(func() { relay(ctx, down, upstream) })
	}
}

// relay serves one connection. If either side ends, both do: gRPC opens another.
func relay(ctx context.Context, down net.Conn, upstream string) {
	defer closeQuietly(down)
	up, err := (&net.Dialer{}).DialContext(ctx, "unix", upstream)
	if err != nil {
		return // The caller sees its connection end.
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() {
		closeQuietly(down)
		closeQuietly(up)
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { pump(cancel, up, down) })
	wg.Go(func() { pump(cancel, down, up) })
	wg.Wait()
}

// pump copies from one connection to the other; on Linux the kernel does it
// (splice) and the bytes never enter this process.
func pump(done context.CancelFunc, to, from net.Conn) {
	defer done()
	io.Copy(to, from) //nolint:errcheck // A relay has nobody to tell; both sides see the end.
}

func closeQuietly(c io.Closer) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err) // Closing a unix socket does not fail otherwise.
	}
}
