package fakeruntime

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// AllMethods is the method name of a fault that can strike every call.
const AllMethods = "*"

// Fault is what goes wrong with a call. Its parts happen in the order of the fields from Delay to Err; with none of
// Hang, Drop and Err the call goes on afterwards. A wait that outlives the caller ends with the caller's own error.
type Fault struct {
	// Match picks the calls; nil means every call of the method. It runs in the call's goroutine.
	Match func(Call) bool
	// Delay waits so long.
	Delay time.Duration
	// Until waits until the channel is closed; nil does not wait.
	Until <-chan struct{}
	// Hang waits until the caller gives up.
	Hang bool
	// Drop closes the caller's connection, and with it all its other calls.
	Drop bool
	// Err is the answer, a gRPC status with its details, or any error (code Unknown).
	Err error
	// Times is how many calls it strikes; 0 means all.
	Times int
	// AfterEffect lets it strike between the work, which is done, and the answer, which gets lost.
	AfterEffect bool
	// AfterFrames lets it strike after so many messages were sent: a stream in its middle.
	AfterFrames int
}

// Inject arms a fault for a method by its short name ("StopContainer"), or for AllMethods. A call is struck by at most one fault:
// the first armed one that is not used up, those of its own method before those of all.
func (r *Runtime) Inject(method string, f Fault) {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	r.faults.armed = append(r.faults.armed, &armed{method: method, fault: f, left: f.Times})
}

// ClearFaults disarms all faults. Calls that a fault holds stay held.
func (r *Runtime) ClearFaults() {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	r.faults.armed = nil
}

type faults struct {
	mu    sync.Mutex
	armed []*armed
}

type armed struct {
	method string
	fault  Fault
	left   int
}

// take finds the fault that strikes the call and uses it up; nil = none. Match runs without the lock.
func (f *faults) take(c Call) *Fault {
	for _, method := range []string{c.Short(), AllMethods} {
		for _, a := range f.of(method) {
			if (a.fault.Match == nil || a.fault.Match(c.decoded())) && f.use(a) {
				return &a.fault
			}
		}
	}
	return nil
}

func (f *faults) of(method string) []*armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.armed), func(a *armed) bool { return a.method != method })
}

// use counts one strike; false = another call was faster and the fault is used up.
func (f *faults) use(a *armed) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.armed, a) {
		return false
	}
	if a.fault.Times == 0 {
		return true
	}
	a.left--
	if a.left == 0 {
		f.armed = slices.DeleteFunc(f.armed, func(other *armed) bool { return other == a })
	}
	return true
}

func (f *Fault) before(ctx context.Context) error {
	if f == nil || f.AfterEffect || f.AfterFrames > 0 {
		return nil
	}
	return f.strike(ctx)
}

func (f *Fault) after(ctx context.Context) error {
	if f == nil || !f.AfterEffect || f.AfterFrames > 0 {
		return nil
	}
	return f.strike(ctx)
}

func (f *Fault) afterFrame(ctx context.Context, sent int) error {
	if f == nil || f.AfterFrames != sent {
		return nil
	}
	return f.strike(ctx)
}

func (f *Fault) strike(ctx context.Context) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	if f.Drop {
		return dropConn(ctx)
	}
	return f.Err
}

func (f *Fault) wait(ctx context.Context) error {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		if err := await(ctx, timer.C); err != nil {
			return err
		}
	}
	if f.Until != nil {
		if err := await(ctx, f.Until); err != nil {
			return err
		}
	}
	if f.Hang {
		return await[struct{}](ctx, nil)
	}
	return nil
}

// await receives from c, which may be nil, unless ctx ends first.
func await[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// knowConn are credentials without any security, which let a call find its own connection.
type knowConn struct{}

type connInfo struct{ conn net.Conn }

// AuthType makes it an AuthInfo.
func (connInfo) AuthType() string { return "none" }

// ServerHandshake remembers the connection.
func (knowConn) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, connInfo{conn: c}, nil
}

// ClientHandshake is not used.
func (knowConn) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, connInfo{conn: c}, nil
}

// Info claims nothing.
func (knowConn) Info() credentials.ProtocolInfo { return credentials.ProtocolInfo{} }

// Clone returns itself: there is no state.
func (k knowConn) Clone() credentials.TransportCredentials { return k }

// OverrideServerName is not used.
func (knowConn) OverrideServerName(string) error { return nil }

func dropConn(ctx context.Context) error {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(connInfo)
	if !ok {
		return status.Error(codes.Internal, "the fake runtime does not know the connection of this call")
	}
	if err := info.conn.Close(); err != nil {
		return status.Errorf(codes.Internal, "drop the connection: %v", err)
	}
	return status.Error(codes.Unavailable, "the fake runtime dropped the connection")
}
