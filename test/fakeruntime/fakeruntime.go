// Package fakeruntime is a container runtime in memory: the CRI runtime and image services on a unix socket,
// for tests and benchmarks of what stands between a kubelet and its runtimes.
//
// It guarantees to behave as containerd 2.4 does wherever a gRPC proxy can see a difference: the codes and texts of
// errors, what is idempotent, short ids, name reservations, the order and content of events, an image store without a
// handler dimension, limits of 16 MiB. Every request is journaled with its raw bytes, metadata and deadline, and every
// method can be made to fail, hang, lag or drop its connection. All methods of Runtime are safe for concurrent use.
//
// It does not run anything: no processes, no networks, no files beside its socket. Its streaming URLs lead nowhere, and
// its statistics are made up. Where containerd answers in random order, it answers sorted by id, and an id that
// is known in full is never ambiguous, so that tests may choose short ids.
package fakeruntime

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// HeaderKey and TrailerKey name the metadata that every response carries; the value is the runtime's name.
const (
	HeaderKey  = "fake-header"
	TrailerKey = "fake-trailer"
)

// UnknownFieldNumber is the protobuf field, a string, that Options.UnknownField adds.
const UnknownFieldNumber = 50001

// maxMessage is containerd's default limit of a message, both ways.
const maxMessage = 16 << 20

// Runtime is one running fake. Its state outlives Stop and Restart, and ends with Reset, Close or the test.
type Runtime struct {
	socket  string
	dir     string // made for the socket; "" if the socket was given
	journal *journal
	faults  *faults
	events  *events
	state   *state
	methods map[string]method

	optionsMu sync.Mutex
	options   Options

	serverMu sync.Mutex // held over a whole start or stop
	server   *grpc.Server
	served   chan struct{} // closed when server has ended
}

// Start serves a fake runtime until the test ends.
func Start(tb testing.TB, o Options) *Runtime {
	tb.Helper()
	r, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// New serves a fake runtime until Close, for programs that are not a test.
func New(o Options) (*Runtime, error) {
	dir := ""
	if o.Socket == "" {
		var err error
		if dir, err = os.MkdirTemp("", "fr"); err != nil { // The path of tb.TempDir is too long for a unix socket.
			return nil, fmt.Errorf("create a directory for the fake runtime's socket: %w", err)
		}
		o.Socket = filepath.Join(dir, "cri.sock")
	}
	r := newRuntime(o)
	r.dir = dir
	if err := r.serve(); err != nil {
		return nil, errors.Join(err, r.removeDir())
	}
	return r, nil
}

// Close ends it as Stop does, forgets its state and removes the directory that New made for its socket.
func (r *Runtime) Close() error {
	r.Stop()
	r.Reset()
	return r.removeDir()
}

func (r *Runtime) removeDir() error {
	if r.dir == "" {
		return nil
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove the fake runtime's directory: %w", err)
	}
	return nil
}

func newRuntime(o Options) *Runtime {
	queue := newEvents()
	r := &Runtime{
		socket:  o.Socket,
		journal: newJournal(),
		faults:  &faults{},
		events:  queue,
		state:   newState(queue),
		options: o,
	}
	r.methods = methodTable(&service{state: r.state, events: queue, options: r.current})
	return r
}

// Endpoint is where it listens, as "unix:///path".
func (r *Runtime) Endpoint() string { return "unix://" + r.socket }

// Stop takes the socket away, ends all connections and waits for the calls in flight, as a stopped containerd does.
// Events that nobody fetched are lost. Stopping twice does nothing.
func (r *Runtime) Stop() {
	r.serverMu.Lock()
	defer r.serverMu.Unlock()
	r.stop()
}

// Restart stops it if it runs and serves the same state on the same socket. It panics if it cannot listen.
func (r *Runtime) Restart() {
	r.serverMu.Lock()
	defer r.serverMu.Unlock()
	r.stop()
	if err := r.serve(); err != nil {
		panic(err)
	}
}

// Reset forgets all sandboxes, containers and images, as after a wiped root directory. What Publish said about the
// registry stays.
func (r *Runtime) Reset() { r.state.reset() }

// Configure changes options while it serves; Socket is ignored. Calls in flight may still hold the old values, so maps
// and messages are to be replaced, not changed in place.
func (r *Runtime) Configure(change func(*Options)) {
	r.optionsMu.Lock()
	defer r.optionsMu.Unlock()
	change(&r.options)
}

// current are the options with their defaults filled in.
func (r *Runtime) current() Options {
	r.optionsMu.Lock()
	defer r.optionsMu.Unlock()
	return r.options.withDefaults()
}

// serve listens and serves in the background; serverMu is held.
func (r *Runtime) serve() error {
	listener, err := net.Listen("unix", r.socket) //nolint:noctx // Listening on a unix socket does not block.
	if err != nil {
		return fmt.Errorf("listen for the fake runtime: %w", err)
	}
	r.server = grpc.NewServer(
		grpc.Creds(knowConn{}),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.WaitForHandlers(true),
		grpc.UnknownServiceHandler(r.handle),
	)
	r.served = make(chan struct{})
	go serveUntilStopped(r.server, listener, r.served)
	return nil
}

// serveUntilStopped ends the program if it cannot accept connections: no test could tell why its calls fail.
func serveUntilStopped(server *grpc.Server, listener net.Listener, served chan<- struct{}) {
	defer close(served)
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		panic(fmt.Errorf("serve the fake runtime: %w", err))
	}
}

// stop waits until all that serve started has ended; serverMu is held.
func (r *Runtime) stop() {
	if r.server == nil {
		return
	}
	r.server.Stop()
	<-r.served
	r.server = nil
	r.events.forget()
}

// service implements both CRI services on the state.
type service struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	state   *state
	events  *events
	options func() Options
}
