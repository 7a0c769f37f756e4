package fakeruntime

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// outStream is the sending side of one call: it gives the method its request, marks what is sent with the unknown
// field, and lets a fault strike after a number of messages. Only the call's own goroutine uses it.
type outStream struct {
	grpc.ServerStream

	request []byte
	mark    string // the value of the unknown field; "" = none
	fault   *Fault
	sent    int
}

// RecvMsg decodes the one request, which was received already.
func (s *outStream) RecvMsg(m any) error { return decode(s.request, m) }

// SendMsg sends a message of cri-api or a frame.
func (s *outStream) SendMsg(m any) error {
	if message, ok := m.(proto.Message); ok && s.mark != "" {
		f, err := marked(message, s.mark)
		if err != nil {
			return err
		}
		m = f
	}
	if err := s.ServerStream.SendMsg(m); err != nil {
		return err
	}
	s.sent++
	return s.fault.afterFrame(s.Context(), s.sent)
}

// sendBatches sends items as containerd does: in messages of at most size, and none at all when there are no items.
func sendBatches[T any](ctx context.Context, items []T, size int, send func([]T) error) error {
	for start := 0; start < len(items); start += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := send(items[start:min(start+size, len(items))]); err != nil {
			return err
		}
	}
	return nil
}
