package hooks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"
)

// exchange is how far a request came. net/http's own errors do not always tell: a
// connection that is closed before anything was read has several of them, one of
// which cannot be recognised, and others quote what the server sent.
type exchange struct {
	connected atomic.Bool
	answered  atomic.Bool // With a byte at least.
}

func (x *exchange) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { x.connected.Store(true) },
		GotFirstResponseByte: func() { x.answered.Store(true) },
	})
}

// noAnswerError is a request that nobody has answered: the server does not listen
// yet, or has closed the connection. It may be sent again.
type noAnswerError struct{ reason error }

// Error gives the reason.
func (e noAnswerError) Error() string { return e.reason.Error() }

// failure explains the error of a request, in words that are none of the server's
// and without its URL, whose query may hold a secret.
func (x *exchange) failure(err error) error {
	network, isNetwork := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, errRedirects):
		return errRedirects
	case !x.answered.Load() && isNetwork && isRefusal(err):
		return noAnswerError{network}
	case !x.answered.Load() && (x.connected.Load() || isRefusal(err)):
		return noAnswerError{errors.New("the server has closed the connection without an answer")}
	case isNetwork:
		return network
	case x.answered.Load():
		return errors.New("the answer is not valid HTTP, or leads to what is not")
	}
	if whole, ok := errors.AsType[*url.Error](err); ok {
		return whole.Err
	}
	return err
}

// isRefusal reports whether the server is not there, or not yet, or no longer.
func isRefusal(err error) bool {
	for _, refusal := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
