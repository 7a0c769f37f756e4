package rawcri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// windowSize of streams and connections on both sides. Static windows also
// turn off the bandwidth estimator and its PINGs.
const windowSize = 4 << 20

// bufferSize is that of the reads from runtimes and of the writes to callers. With
// gRPC's own 32 KiB the list of a hundred containers takes twice to four times as
// many system calls, and those are a third of what such a call costs.
const bufferSize = 128 << 10

// streamWorkers serve calls without a new goroutine, and a new stack, for
// each; when all are busy gRPC starts goroutines as usual.
const streamWorkers = 16

// Handler answers the calls of one gRPC service. Its error is the call's
// status: a status error arrives unchanged, any other as Unknown. The context's
// outgoing metadata is what the caller sent.
type Handler func(ctx context.Context, call *Call) error

// ServerOptions are what a Server needs.
type ServerOptions struct {
	Catalog  *Catalog
	Services map[string]Handler // By full service name.
	// Observe is told of each call before it is handled, and returns what is
	// told of its end. Each RPC is observed once.
	Observe func(call *Call) (done func(err error))
	// Trace, if not nil, begins a call's span and returns the context of what is
	// called for it.
	Trace func(ctx context.Context, call *Call) (_ context.Context, done func(err error))
	Log   *logrus.Entry
	// Extra gRPC options, for tests.
	Extra []grpc.ServerOption
}

// Server is the gRPC server in front of the handlers. There is no method
// table in it: every method, known to gRPC or not, takes the one way through
// serve.
type Server struct {
	options ServerOptions
	grpc    *grpc.Server
	// stopping ends endless calls, which would hold up every shutdown.
	stopping chan struct{}
	stop     sync.Once
}

// NewServer returns a server that does not listen yet.
func NewServer(o ServerOptions) *Server {
	s := &Server{options: o, stopping: make(chan struct{})}
	s.grpc = grpc.NewServer(append([]grpc.ServerOption{
		grpc.ForceServerCodecV2(NewCodec()),
		grpc.UnknownServiceHandler(s.handle),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WriteBufferSize(bufferSize),
		grpc.StaticStreamWindowSize(windowSize),
		grpc.StaticConnWindowSize(windowSize),
		grpc.MaxRecvMsgSize(MaxMessageSize),
		grpc.MaxSendMsgSize(MaxMessageSize),
	}, o.Extra...)...)
	return s
}

// Serve answers calls on l until Shutdown, also one that came before; it
// returns an error when l fails.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve CRI on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown refuses new calls, ends event streams, and waits at most that long
// for the other calls; then it cancels them.
func (s *Server) Shutdown(limit time.Duration) {
	s.stop.Do(func() { close(s.stopping) })
	var wg sync.WaitGroup
	drained := make(chan struct{})
	wg.Go(func() {
		defer close(drained)
		s.grpc.GracefulStop()
	})
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		s.grpc.Stop()
	}
	wg.Wait()
}

// handle is gRPC's entry for every RPC.
func (s *Server) handle(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	call := &Call{Method: s.options.Catalog.Lookup(name), Request: &Frame{}, stream: stream}
	defer func() { call.Request.Free() }()
	done := s.options.Observe(call)
	ctx, traced := outgoing(stream.Context()), func(error) {}
	if s.options.Trace != nil {
		ctx, traced = s.options.Trace(ctx, call)
	}
	err := s.serve(ctx, call)
	done(err)
	traced(err)
	return err
}

func (s *Server) serve(ctx context.Context, call *Call) (err error) {
	handler, ok := s.options.Services[call.Method.Service]
	if !ok {
		return status.Errorf(codes.Unimplemented, "unknown service %s: cri-proxy serves %s and %s",
			call.Method.Service, RuntimeService, ImageService)
	}
	if err := call.stream.RecvMsg(call.Request); errors.Is(err, io.EOF) {
		return status.Errorf(codes.InvalidArgument, "%s came without a request message", call.Method.FullName)
	} else if err != nil {
		return err // Too large, or the caller is gone: gRPC says it.
	}
	// One bad message must not end the node's runtime: gRPC has no recovery of
	// its own.
	defer func() {
		if r := recover(); r != nil {
			s.options.Log.WithFields(logrus.Fields{"method": call.Method.Name, "panic": r}).Errorf("call panicked\n%s", debug.Stack())
			err = status.Errorf(codes.Internal, "cri-proxy panicked in %s: see its log", call.Method.Name)
		}
	}()
	if call.Method.Endless {
		return s.untilStopped(ctx, call, handler)
	}
	return handler(ctx, call)
}

// untilStopped handles a call that would never end by itself.
func (s *Server) untilStopped(ctx context.Context, call *Call, handler Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	err := handler(ctx, call)
	select {
	case <-s.stopping:
		return status.Errorf(codes.Unavailable, "cri-proxy is shutting down: subscribe again")
	default:
		return err
	}
}
