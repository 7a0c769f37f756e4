package rawcri

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Forward sends the call's request to conn and everything that comes back to
// the caller. change, if not nil, is applied to each message on the way back.
func Forward(ctx context.Context, call *Call, conn grpc.ClientConnInterface, change Change) error {
	if call.Method.Known && !call.Method.ServerStreams {
		answer, err := Invoke(ctx, call, conn, call.Request)
		if err != nil {
			return err
		}
		return send(call, answer, change)
	}
	return forwardStream(ctx, call, conn, change)
}

// Change returns another frame in place of the one given, which it frees, or
// the one given.
type Change func(*Frame) (*Frame, error)

func send(call *Call, f *Frame, change Change) error {
	if change == nil {
		return call.Send(f)
	}
	changed, err := change(f)
	if err != nil {
		return err
	}
	return call.Send(changed)
}

// Invoke sends req to conn as a unary call of the call's method, passes
// header and trailer on to the caller and returns the answer, which the caller
// of Invoke sends or frees.
func Invoke(ctx context.Context, call *Call, conn grpc.ClientConnInterface, req *Frame) (*Frame, error) {
	var header, trailer metadata.MD
	answer := &Frame{}
	err := conn.Invoke(ctx, call.Method.FullName, req, answer, grpc.Header(&header), grpc.Trailer(&trailer))
	if e := call.setHeader(header); err == nil {
		err = e
	}
	call.setTrailer(trailer)
	if err != nil {
		answer.Free()
		return nil, err
	}
	return answer, nil
}

// Fetch is a unary call whose header and trailer nobody sees: one of several
// upstreams' parts of an answer.
func Fetch(ctx context.Context, conn grpc.ClientConnInterface, method string, req *Frame, o ...grpc.CallOption) (*Frame, error) {
	answer := &Frame{}
	if err := conn.Invoke(ctx, method, req, answer, o...); err != nil {
		answer.Free()
		return nil, err
	}
	return answer, nil
}

// Open starts a call of one request and any number of answers, to be read
// with [Next] until it returns an error; io.EOF is the good end. The stream ends
// with ctx.
func Open(ctx context.Context, conn grpc.ClientConnInterface, method string, req *Frame) (grpc.ClientStream, error) {
	up, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	// io.EOF means that the upstream has answered already; its status comes with
	// the first read.
	if err := up.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return up, up.CloseSend()
}

// Next reads one message of a stream.
func Next(up grpc.ClientStream) (*Frame, error) {
	f := &Frame{}
	if err := up.RecvMsg(f); err != nil {
		return nil, err
	}
	return f, nil
}

// forwardStream serves server streams, and methods that are not known, of
// which a unary one is a stream of one message.
func forwardStream(ctx context.Context, call *Call, conn grpc.ClientConnInterface, change Change) error {
	ctx, cancel := context.WithCancel(ctx) // An early return ends the upstream's side too.
	defer cancel()
	up, err := Open(ctx, conn, call.Method.FullName, call.Request)
	if err != nil {
		return err
	}
	// An error here comes again, with its trailer, from the first read.
	if header, err := up.Header(); err == nil && header != nil {
		dropReserved(header)
		if err := call.stream.SendHeader(header); err != nil {
			return err
		}
	}
	for {
		f, err := Next(up)
		if err != nil {
			call.setTrailer(up.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := send(call, f, change); err != nil {
			return err
		}
	}
}
