package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/handlers"
	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// generation is what one configuration has made. It is never changed: a call
// that has begun in one ends in it, whatever is reloaded meanwhile.
type generation struct {
	cfg        *configs.Config // As in the file, and the handlers that drain.
	table      *routing.Table
	backends   *backend.Set
	images     *imageservice.Service
	imageAdmin http.Handler
	front      *handlers.Runtime
	calls      calls
}

// next returns the generation of another configuration, of which nothing is in
// use yet. The backends in it are new, or those of g.
func (g *generation) next(cfg *configs.Config, index *routing.Index) (*generation, error) {
	draining := g.draining(cfg, index)
	merged := *cfg
	merged.Handlers = maps.Clone(cfg.Handlers)
	for _, name := range draining {
		merged.Handlers[name] = g.cfg.Handlers[name]
	}
	table := routing.NewTable(&merged, draining...)
	backends, err := g.backends.Next(&merged, table)
	if err != nil {
		return nil, err
	}
	return &generation{cfg: &merged, table: table, backends: backends}, nil
}

// draining returns the handlers that a configuration no longer has and that are
// still needed: for their pods, or since one of them is being made.
func (g *generation) draining(cfg *configs.Config, index *routing.Index) []string {
	var names []string
	for name, h := range g.cfg.Handlers {
		_, configured := cfg.Handlers[name]
		_, hasBackend := cfg.Backends[h.Backend]
		needed := !slices.Contains(g.table.Draining(), name) || index.HandlerInUse(name)
		if !configured && hasBackend && needed {
			names = append(names, name)
		}
	}
	return names
}

// complete makes the fronts.
func (g *generation) complete(before *generation) {
	g.images = before.images.Next(g.backends, g.table)
	g.imageAdmin = g.images.Admin()
	g.front = before.front.Next(g.backends, g.table, g.images.Prepare)
}

// calls counts the calls of a generation, so that it is known when it is over.
type calls struct {
	mu     sync.Mutex
	n      int
	closed bool
	over   chan struct{}
}

// begin counts a call; false when no further ones may begin.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.n++
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.closed && c.n == 0 {
		close(c.over)
	}
}

// finish lets no further calls begin. What it returns is closed when the last
// one has ended.
func (c *calls) finish() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.over = true, make(chan struct{})
	if c.n == 0 {
		close(c.over)
	}
	return c.over
}

// enter returns the generation that a call begins in, to be left when it ends.
func (d *daemon) enter() *generation {
	for {
		if g := d.current.Load(); g.calls.begin() {
			return g
		}
	}
}

func (g *generation) leave() { g.calls.end() }

// backends returns those of the newest configuration.
func (d *daemon) backends() *backend.Set { return d.current.Load().backends }

// inGeneration serves each call in the generation that is the newest when it
// comes. A call that does not end by itself is not waited for: it follows the
// generations.
func (d *daemon) inGeneration(of func(*generation) rawcri.Handler) rawcri.Handler {
	return func(ctx context.Context, call *rawcri.Call) error {
		if call.Method.Endless {
			return of(d.current.Load())(ctx, call)
		}
		g := d.enter()
		defer g.leave()
		return of(g)(ctx, call)
	}
}

func (d *daemon) serveImages(w http.ResponseWriter, q *http.Request) {
	g := d.enter()
	defer g.leave()
	g.imageAdmin.ServeHTTP(w, q)
}
