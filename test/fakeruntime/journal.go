package fakeruntime

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Call is one request as it came in.
type Call struct {
	// Method is the full name, "/runtime.v1.RuntimeService/Version".
	Method string
	// Request is the decoded message; nil for a method that cri-api does not know, and for bytes that do not decode.
	Request proto.Message
	// Raw are the bytes of the request.
	Raw []byte
	// Metadata are the request's headers.
	Metadata metadata.MD
	// Deadline is the caller's deadline as it arrived; zero = none.
	Deadline time.Time
	// Received is when the request had arrived.
	Received time.Time

	request protoreflect.MessageType
}

// Short is the method's name without its service, "Version".
func (c Call) Short() string { return path.Base(c.Method) }

// decoded is the call with its Request, which the journal decodes only for those who read it.
func (c Call) decoded() Call {
	if c.request == nil {
		return c
	}
	m := c.request.New().Interface()
	if err := proto.Unmarshal(c.Raw, m); err == nil {
		c.Request = m
	}
	return c
}

// journal holds the calls in the order in which they arrived.
type journal struct {
	mu      sync.Mutex
	calls   []Call
	changed chan struct{} // closed and replaced at every new call
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

func (j *journal) add(c Call) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = append(j.calls, c)
	close(j.changed)
	j.changed = make(chan struct{})
}

// read returns the calls that keep wants and a channel that closes at the next call.
func (j *journal) read(keep func(Call) bool) ([]Call, <-chan struct{}) {
	j.mu.Lock()
	calls, changed := slices.Clone(j.calls), j.changed
	j.mu.Unlock()
	kept := []Call{}
	for _, c := range calls {
		if keep(c) {
			kept = append(kept, c.decoded())
		}
	}
	return kept, changed
}

// Journal returns all calls in the order in which they arrived, those that failed included.
func (r *Runtime) Journal() []Call {
	calls, _ := r.journal.read(func(Call) bool { return true })
	return calls
}

// Calls returns the calls of one method by its short name, as "StopContainer".
func (r *Runtime) Calls(method string) []Call {
	calls, _ := r.journal.read(func(c Call) bool { return c.Short() == method })
	return calls
}

// WaitCalls waits until a method, by its short name, has been called n times, and returns its calls.
func (r *Runtime) WaitCalls(ctx context.Context, method string, n int) ([]Call, error) {
	for {
		calls, changed := r.journal.read(func(c Call) bool { return c.Short() == method })
		if len(calls) >= n {
			return calls, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return calls, fmt.Errorf("wait for %d calls of %s, have %d: %w", n, method, len(calls), ctx.Err())
		}
	}
}

// ClearJournal forgets all calls.
func (r *Runtime) ClearJournal() {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	r.journal.calls = nil
}
