package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// State is what a backend was seen to be.
type State struct {
	Up           bool      // It answers and its ids are known.
	Since        time.Time // When Up last changed.
	Err          error     // Why it is not up.
	Listed       bool      // Its ids were listed at least once in this process.
	Runtime      string    // Its runtime_name, "" before the first answer.
	Version      string    // Its runtime_version.
	CgroupDriver string    // SYSTEMD or CGROUPFS; "" when it does not say.
	LastErr      error     // Why it was not up last, also when it is again; nil when it always was.
	LastErrAt    time.Time // When that was first so.
}

// Backend is one upstream runtime as one configuration has it. It is made by
// [New] or [Set.Next].
type Backend struct {
	Name   string
	Config configs.Backend
	*upstream
}

// upstream is what of a backend outlives a configuration.
type upstream struct {
	// Sandboxes and Containers are what it last listed, for when it is away.
	Sandboxes, Containers LastList

	conn   *grpc.ClientConn
	images *grpc.ClientConn // The same as conn, unless the configuration names another socket.

	mu         sync.Mutex
	state      State
	connection connection         // Of conn.
	wake       context.CancelFunc // Ends waitLost; nil while nobody waits.
	creating   int                // Creates of pod sandboxes under way.
	retired    bool               // No further ones.
}

func newBackend(name string, cfg configs.Backend, dial []grpc.DialOption) (*Backend, error) {
	path, err := configs.SocketPath(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("backend %q: %w", name, err)
	}
	b := &Backend{Name: name, Config: cfg, upstream: &upstream{state: State{Since: time.Now(), Err: errNotTried}}}
	b.setTTL()
	if b.conn, err = rawcri.Dial(path, append(slices.Clone(dial), b.dialer(path))...); err != nil {
		return nil, fmt.Errorf("backend %q: %w", name, err)
	}
	b.images = b.conn
	if cfg.Images() != cfg.Endpoint {
		if b.images, err = dialEndpoint(cfg.Images(), dial); err != nil {
			return nil, errors.Join(fmt.Errorf("backend %q: image endpoint: %w", name, err), b.conn.Close())
		}
	}
	return b, nil
}

// setTTL tells the last lists how old they may become.
func (b *Backend) setTTL() {
	b.Sandboxes.setTTL(b.Config.LastKnownTTL.Duration)
	b.Containers.setTTL(b.Config.LastKnownTTL.Duration)
}

// errNotTried is a backend's state before the first answer.
var errNotTried = errors.New("it was not reached yet")

func dialEndpoint(endpoint string, dial []grpc.DialOption) (*grpc.ClientConn, error) {
	path, err := configs.SocketPath(endpoint)
	if err != nil {
		return nil, err
	}
	return rawcri.Dial(path, dial...)
}

func (b *upstream) close() error {
	b.Sandboxes.free()
	b.Containers.free()
	err := b.conn.Close()
	if b.images != b.conn {
		err = errors.Join(err, b.images.Close())
	}
	return err
}

// Runtime returns the typed client of the backend's RuntimeService.
func (b *Backend) Runtime() runtimeapi.RuntimeServiceClient {
	return runtimeapi.NewRuntimeServiceClient(b.conn)
}

// Images returns the typed client of the backend's ImageService.
func (b *Backend) Images() runtimeapi.ImageServiceClient {
	return runtimeapi.NewImageServiceClient(b.images)
}

// connOf returns the connection that serves a CRI service.
func (b *Backend) connOf(service string) *grpc.ClientConn {
	if service == rawcri.ImageService {
		return b.images
	}
	return b.conn
}

// State returns what the backend was last seen to be.
func (b *Backend) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Up reports whether the backend answers and its ids are known.
func (b *Backend) Up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.Up
}

// Latency asks an up backend for its version and returns how long that took.
func (b *Backend) Latency(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	_, err := b.Runtime().Version(ctx, &runtimeapi.VersionRequest{})
	return time.Since(began), err
}

// Suspect takes the backend for away until it answers again: a call that
// should be short was not.
func (b *Backend) Suspect(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.suspect(err)
}

// suspect is Suspect for who holds the lock.
func (b *Backend) suspect(err error) {
	if !b.state.Up {
		return
	}
	b.state.Up, b.state.Since, b.state.Err = false, time.Now(), err
	b.state.LastErr, b.state.LastErrAt = err, time.Now()
	if b.wake != nil {
		b.wake()
	}
}

// waitLost waits until the backend, which is up, no longer is.
func (b *Backend) waitLost(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if b.setWake(cancel) {
		<-ctx.Done()
	}
	b.setWake(nil)
}

var errConnectionLost = errors.New("the connection was lost")

func (b *Backend) setWake(cancel context.CancelFunc) (up bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake = cancel
	return b.state.Up
}

// Away returns the error of a call that needs this backend while it does not
// answer.
func (b *Backend) Away() error {
	s := b.State()
	return status.Errorf(codes.Unavailable, "backend %q (%s) is away since %s: %s",
		b.Name, b.Config.Endpoint, s.Since.Format(time.RFC3339), message(s.Err))
}

// NoAnswer returns the error of a call that this backend did not answer in its
// time, without being taken for away because of it.
func (b *Backend) NoAnswer(method string, err error) error {
	return status.Errorf(codes.Unavailable, "backend %q (%s) did not answer %s: %s", b.Name, b.Config.Endpoint, method, message(err))
}

// explain puts the backend's name before an error that no runtime gave: the
// connection failed. A runtime's own status passes as it is.
func (b *Backend) explain(err error, conn *grpc.ClientConn) error {
	if status.Code(err) != codes.Unavailable || conn.GetState() == connectivity.Ready {
		return err
	}
	return status.Errorf(codes.Unavailable, "backend %q (%s) is away: %s", b.Name, conn.Target(), message(err))
}

// ExplainImages puts the backend's name before an error of its ImageService
// that no runtime gave; any other passes as it is.
func (b *Backend) ExplainImages(err error) error { return b.explain(err, b.images) }

// IsAway reports whether err says that a backend did not answer, rather than
// what it answered. Only a deadline of our own counts: ctx is the caller's.
func IsAway(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.DeadlineExceeded:
		// The backend may say that the caller's time is over before our timer does.
		deadline, limited := ctx.Deadline()
		return ctx.Err() == nil && (!limited || time.Now().Before(deadline))
	default:
		return false
	}
}

// message is the text of an error without gRPC's wrapping of the code.
func message(err error) string {
	if err == nil {
		return "no reason known"
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
