package rawcri

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Call is one RPC on its way through the proxy. Request is freed by the
// server once the handler has returned.
type Call struct {
	Method  Method
	Request *Frame
	Backend string // Who answered, for metrics and logs; set by who forwards.
	Sent    int    // Bytes of the messages sent back so far.
	// Private is set when the error that is returned may quote a secret of the
	// request: it is the caller's alone, and not for logs.
	Private bool

	stream grpc.ServerStream
}

// Send returns one message to the caller and frees it.
func (c *Call) Send(f *Frame) error {
	defer f.Free()
	c.Sent += f.Len()
	return c.stream.SendMsg(f)
}

// Reply returns one typed message to the caller.
func (c *Call) Reply(m proto.Message) error {
	f, err := Encode(m)
	if err != nil {
		return err
	}
	return c.Send(f)
}

// setHeader passes an upstream's header on with the next message or status.
func (c *Call) setHeader(md metadata.MD) error {
	dropReserved(md)
	if len(md) == 0 {
		return nil
	}
	return c.stream.SetHeader(md)
}

func (c *Call) setTrailer(md metadata.MD) {
	dropReserved(md)
	c.stream.SetTrailer(md)
}

// outgoing returns a context whose upstream calls carry the metadata that came
// in: trace context above all.
func outgoing(ctx context.Context) context.Context {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return ctx
	}
	if dropReserved(md); len(md) == 0 {
		return ctx // As most calls are.
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// dropReserved removes what belongs to one connection and is written anew by
// gRPC on the next one. Binary trace context is the callers'.
func dropReserved(md metadata.MD) {
	for key := range md {
		switch {
		case key == "grpc-trace-bin", key == "grpc-tags-bin":
		case key == "content-type", key == "user-agent", key == "te",
			strings.HasPrefix(key, ":"), strings.HasPrefix(key, "grpc-"):
			delete(md, key)
		}
	}
}
