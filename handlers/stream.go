package handlers

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// streamed is one backend's part of a streamed list.
type streamed struct {
	b     *backend.Backend
	up    *backend.Stream // nil: first is all there is.
	first *rawcri.Frame   // nil: the stream is empty.
	err   error

	last  *backend.LastList // nil: not to be kept.
	since uint64
	seen  []*rawcri.Frame // References to what was sent, for last.
}

// stream answers a streamed list from all backends. Nothing is sent before
// each has begun to answer, because the kubelet falls back to the unary list only
// when Unimplemented is the first thing it sees. A backend lost on the way ends
// the stream with its error: it is whole or it fails.
func (r *Runtime) stream(ctx context.Context, call *rawcri.Call) error {
	if r.Backends.Single() {
		return r.toDefault(ctx, call)
	}
	f, err := readFilter(call)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := r.open(ctx, call, f)
	defer func() {
		for _, p := range parts {
			p.close()
		}
	}()
	for _, p := range parts {
		if p.err != nil {
			return p.err
		}
	}
	for _, p := range parts {
		if err := p.copyTo(call); err != nil {
			return err
		}
	}
	return nil
}

// open starts all parts side by side, up to their first message.
func (r *Runtime) open(ctx context.Context, call *rawcri.Call, f filter) []*streamed {
	targets := r.targets(f)
	parts := make([]*streamed, len(targets))
	var wg sync.WaitGroup
	for i, b := range targets {
		parts[i] = &streamed{b: b}
		wg.Go(func() { r.begin(ctx, call, f, parts[i]) })
	}
	wg.Wait()
	return parts
}

func (r *Runtime) begin(ctx context.Context, call *rawcri.Call, f filter, p *streamed) {
	if !p.b.Up() {
		p.first, p.err = r.without(call.Method.Name, p.b, f, p.b.Away())
		return
	}
	if last := lastOf(p.b, call.Method.Name); last != nil && f.all {
		p.last, p.since = last, last.Begin()
	}
	p.err = r.firstMessage(ctx, call, p)
	if p.err != nil && backend.IsAway(ctx, p.err) {
		p.up = nil
		p.first.Free()     // It may have come in the instant in which its time was over.
		if p.last != nil { // What follows is that list itself.
			p.last.End(p.since, nil)
			p.last = nil
		}
		p.first, p.err = r.lost(call.Method.Name, p.b, f, p.err)
	}
}

// firstMessage waits for it at most the backend's list_timeout; the rest of
// the stream has the caller's deadline.
func (r *Runtime) firstMessage(ctx context.Context, call *rawcri.Call, p *streamed) error {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(p.b.Config.ListTimeout.Duration, cancel)
	err := r.readFirst(ctx, call, p)
	if !timer.Stop() { // Also if the message came just now: its stream is cancelled.
		return status.Errorf(codes.DeadlineExceeded, "no answer to %s within %s", call.Method.Name, p.b.Config.ListTimeout)
	}
	return err
}

func (r *Runtime) readFirst(ctx context.Context, call *rawcri.Call, p *streamed) (err error) {
	if p.up, err = r.Backends.Open(ctx, call.Method, p.b, call.Request); err != nil {
		return err
	}
	if p.first, err = p.up.Next(); errors.Is(err, io.EOF) {
		p.up, err = nil, nil
	}
	return err
}

// copyTo sends the part's messages to the caller.
func (p *streamed) copyTo(call *rawcri.Call) error {
	for f := p.first; f != nil; {
		p.first = nil
		if p.last != nil {
			p.seen = append(p.seen, f.Ref())
		}
		if err := call.Send(f); err != nil {
			return err
		}
		if p.up == nil {
			break
		}
		var err error
		if f, err = p.up.Next(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	p.keep(call.Method.Name)
	return nil
}

// keep makes what was streamed the backend's last known list.
func (p *streamed) keep(method string) {
	if p.last == nil {
		return
	}
	// A list too large for one message is not kept: it could not be answered.
	list, err := rawcri.Merge(method, p.seen)
	if err == nil {
		defer list.Free()
	}
	p.last.End(p.since, list)
	p.last = nil
}

func (p *streamed) close() {
	p.first.Free()
	free(p.seen)
	if p.last != nil {
		p.last.End(p.since, nil)
	}
}
