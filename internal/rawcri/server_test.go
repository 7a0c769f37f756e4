package rawcri

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// served is a server with one handler, and what it observed.
type served struct {
	server *Server
	conn   *grpc.ClientConn
	log    *bytes.Buffer // Read after the server's end.
	ended  chan error    // Of Serve.

	mu    sync.Mutex
	codes map[string][]codes.Code // By method.
}

// handleWith serves a RuntimeService until the test ends.
func handleWith(t *testing.T, handler Handler) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "rc") // t.TempDir is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &served{log: &bytes.Buffer{}, ended: make(chan error, 1), codes: map[string][]codes.Code{}}
	logger := logrus.New()
	logger.SetOutput(s.log)
	s.server = NewServer(ServerOptions{
		Catalog: NewCatalog(), Services: map[string]Handler{RuntimeService: handler},
		Observe: s.observe, Log: logrus.NewEntry(logger),
	})
	go func() { s.ended <- s.server.Serve(listener) }()
	if s.conn, err = Dial(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.server.Shutdown(0)
		if err := errors.Join(s.conn.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) observe(call *Call) func(error) {
	return func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.codes[call.Method.Name] = append(s.codes[call.Method.Name], status.Code(err))
	}
}

// end stops the server, waits for it, and returns what Serve said.
func (s *served) end(limit time.Duration) error {
	s.server.Shutdown(limit)
	return <-s.ended
}

// TestPanic: a call that panics is Internal and is counted; the next one is
// served.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := handleWith(t, func(_ context.Context, call *Call) error {
		switch call.Method.Name {
		case "Version":
			return call.Reply(&runtimeapi.VersionResponse{RuntimeName: "it lives"})
		case "StreamContainers": // In the middle of its answer.
			if err := call.Reply(&runtimeapi.StreamContainersResponse{}); err != nil {
				return err
			}
		}
		return errors.New(strings.Split(call.Method.Name, "/")[1])
	})
	client := runtimeapi.NewRuntimeServiceClient(s.conn)
	for range 3 {
		_, err := client.Status(t.Context(), &runtimeapi.StatusRequest{})
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "panicked in Status") {
			t.Errorf("unary: %v, want Internal naming the method", err)
		}
	}
	up, err := client.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Recv(); err != nil {
		t.Errorf("the stream's first message: %v", err)
	}
	if _, err := up.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("stream: %v, want Internal", err)
	}
	if got, err := client.Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil || got.GetRuntimeName() != "it lives" {
		t.Errorf("afterwards: %v, %v", got, err)
	}
	if err := s.end(time.Minute); err != nil {
		t.Error(err)
	}
	if got := s.codes["Status"]; len(got) != 3 || got[0] != codes.Internal {
		t.Errorf("counted %v, want Internal three times", got)
	}
	if got := s.codes["StreamContainers"]; len(got) != 1 || got[0] != codes.Internal {
		t.Errorf("counted %v, want Internal once", got)
	}
	for _, want := range []string{"level=error", "call panicked", "method=Status", "index out of range", "server_test.go"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, s.log)
		}
	}
}

// TestShutdownWaits: a handler that takes its time after its call was
// cancelled is waited for: what it uses may be closed afterwards.
func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	began, tidied := make(chan struct{}), false
	s := handleWith(t, func(ctx context.Context, _ *Call) error {
		close(began)
		<-ctx.Done()
		timer := time.NewTimer(50 * time.Millisecond)
		<-timer.C
		tidied = true // The race detector says if nobody waits for this.
		return ctx.Err()
	})
	done := make(chan error, 1)
	go func() {
		_, err := runtimeapi.NewRuntimeServiceClient(s.conn).Status(t.Context(), &runtimeapi.StatusRequest{})
		done <- err
	}()
	<-began
	if err := s.end(10 * time.Millisecond); err != nil {
		t.Error(err)
	}
	if !tidied {
		t.Error("the handler was not waited for")
	}
	if err := <-done; err == nil {
		t.Error("the call that was cut off succeeded")
	}
}

// TestWithoutRequest: a call that ends before its message is no call to handle.
func TestWithoutRequest(t *testing.T) {
	t.Parallel()
	s := handleWith(t, func(context.Context, *Call) error { panic("it must not be handled") })
	up, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/"+RuntimeService+"/Status")
	if err != nil {
		t.Fatal(err)
	}
	if err := up.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := up.RecvMsg(&Frame{}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "Status came without a request") {
		t.Errorf("answered %v, want InvalidArgument", err)
	}
	if err := s.end(time.Minute); err != nil {
		t.Error(err)
	}
	if got := s.codes["Status"]; len(got) != 1 || got[0] != codes.InvalidArgument {
		t.Errorf("counted %v, want InvalidArgument once", got)
	}
}

// TestServeAfterShutdown: a stop may be faster than the goroutine that serves.
func TestServeAfterShutdown(t *testing.T) {
	t.Parallel()
	s := NewServer(ServerOptions{Catalog: NewCatalog()})
	s.Shutdown(time.Minute)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(listener); err != nil {
		t.Errorf("Serve: %v, want the good end", err)
	}
	if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was left open: %v", err)
	}
	s.Shutdown(0) // Once more does no harm.
}
