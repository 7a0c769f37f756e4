package backend

import (
	"context"

	"google.golang.org/grpc"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// Forward sends a call to b and all that comes back to the caller, handler
// names translated.
func (s *Set) Forward(ctx context.Context, call *rawcri.Call, b *Backend) error {
	call.Backend = b.Name
	conn := b.connOf(call.Method.Service)
	return b.explain(rawcri.Forward(ctx, call, conn, s.change(b, call.Method)), conn)
}

// Invoke sends req to b as the unary call of call's method and returns the
// answer, handler names translated; header and trailer go to the caller.
func (s *Set) Invoke(ctx context.Context, call *rawcri.Call, b *Backend, req *rawcri.Frame) (*rawcri.Frame, error) {
	call.Backend = b.Name
	conn := b.connOf(call.Method.Service)
	answer, err := rawcri.Invoke(ctx, call, conn, req)
	return s.Translate(b, call.Method, answer, b.explain(err, conn))
}

// Fetch gets b's part of an answer that several backends give.
func (s *Set) Fetch(ctx context.Context, method rawcri.Method, b *Backend, req *rawcri.Frame) (*rawcri.Frame, error) {
	conn := b.connOf(method.Service)
	answer, err := rawcri.Fetch(ctx, conn, method.FullName, req)
	return s.Translate(b, method, answer, b.explain(err, conn))
}

// Stream is an open server stream of one backend.
type Stream struct {
	up     grpc.ClientStream
	conn   *grpc.ClientConn
	b      *Backend
	change rawcri.Change
}

// Open starts b's part of a streamed answer; it ends with ctx.
func (s *Set) Open(ctx context.Context, method rawcri.Method, b *Backend, req *rawcri.Frame) (*Stream, error) {
	conn := b.connOf(method.Service)
	up, err := rawcri.Open(ctx, conn, method.FullName, req)
	if err != nil {
		return nil, b.explain(err, conn)
	}
	return &Stream{up: up, conn: conn, b: b, change: s.change(b, method)}, nil
}

// Next returns the stream's next message, handler names translated; io.EOF is
// its good end.
func (s *Stream) Next() (*rawcri.Frame, error) {
	f, err := rawcri.Next(s.up)
	if err != nil || s.change == nil {
		return f, s.b.explain(err, s.conn)
	}
	return s.change(f)
}

// Translate returns f, which is b's answer to m, with handler names translated,
// or err if there is one.
func (s *Set) Translate(b *Backend, m rawcri.Method, f *rawcri.Frame, err error) (*rawcri.Frame, error) {
	change := s.change(b, m)
	if err != nil || change == nil {
		return f, err
	}
	return change(f)
}

// change returns what translates the handler names in b's answers to m, nil
// where none can differ.
func (s *Set) change(b *Backend, m rawcri.Method) rawcri.Change {
	if m.Answer == nil || !s.Table.Renames(b.Name) {
		return nil
	}
	rename := s.Rename(b)
	return func(f *rawcri.Frame) (*rawcri.Frame, error) {
		defer f.Free()
		return m.Answer.Rewrite(f, rename)
	}
}

// Rename returns the translation of b's runtime names to handler names: what
// is known of the sandbox, else what the configuration says.
func (s *Set) Rename(b *Backend) rawcri.Rename {
	return func(sandbox, runtime []byte) (string, bool) {
		if sandbox != nil {
			if name, ok := s.Index.SandboxHandler(sandbox); ok && name != "" {
				return name, true
			}
		}
		return s.Table.Public(b.Name, runtime)
	}
}
