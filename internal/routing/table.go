package routing

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cri-proxy/cri-proxy/configs"
)

// Handler is a RuntimeClass handler as routing sees it.
type Handler struct {
	Name    string // The pods' name for it.
	Backend string
	Runtime string // The backend's name for it; "" is the backend's default.
	// Shared: another handler means the same runtime of the same backend, so
	// that no list tells which of the two a sandbox has. Of a handler that drains
	// and the one that has its runtime now, only the former is: the runtime's name
	// means the latter.
	Shared bool
	// Draining: the configuration no longer has it. What is there of it is known
	// by its name, and nothing new begins.
	Draining bool
}

// UnknownHandlerError is a handler name that the configuration does not have.
type UnknownHandlerError struct {
	Handler  string
	Known    []string // Sorted.
	Draining bool     // It had it before.
}

// Error implements error.
func (e *UnknownHandlerError) Error() string {
	if e.Draining {
		return fmt.Sprintf("handler %q was taken out of the configuration and takes no new pods; known: %s", e.Handler, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("handler %q is not configured; known: %s", e.Handler, strings.Join(e.Known, ", "))
}

// Table maps handlers to runtimes and back. It is immutable.
type Table struct {
	handlers map[string]Handler
	standard string
	names    []string                     // Sorted, without those that drain, which are in:
	draining []string                     // Sorted too.
	public   map[string]map[string]string // Backend → runtime → handler, the first by name.
	renames  map[string]bool              // Backends where a name must be translated.
}

// NewTable reads the handlers of a valid configuration. Those that are named as
// draining are in it only for the sake of what is there of them.
func NewTable(cfg *configs.Config, draining ...string) *Table {
	t := &Table{
		handlers: map[string]Handler{},
		standard: cfg.DefaultHandler,
		draining: slices.Sorted(slices.Values(draining)),
		public:   map[string]map[string]string{},
		renames:  map[string]bool{},
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Handlers)) {
		if !slices.Contains(draining, name) {
			t.names = append(t.names, name)
			t.add(handlerOf(cfg, name))
		}
	}
	for _, name := range t.draining {
		t.addDraining(handlerOf(cfg, name))
	}
	return t
}

func handlerOf(cfg *configs.Config, name string) Handler {
	h := cfg.Handlers[name]
	return Handler{Name: name, Backend: h.Backend, Runtime: h.RuntimeName(name)}
}

// addDraining adds a handler that no new sandbox will have. A runtime that
// another handler stands for keeps that one's name.
func (t *Table) addDraining(h Handler) {
	h.Draining = true
	if t.public[h.Backend] == nil {
		t.public[h.Backend] = map[string]string{}
	}
	if _, h.Shared = t.public[h.Backend][h.Runtime]; !h.Shared {
		t.public[h.Backend][h.Runtime] = h.Name
	}
	if h.Shared || h.Name != h.Runtime {
		t.renames[h.Backend] = true
	}
	t.handlers[h.Name] = h
}

func (t *Table) add(h Handler) {
	runtimes := t.public[h.Backend]
	if runtimes == nil {
		runtimes = map[string]string{}
		t.public[h.Backend] = runtimes
	}
	if first, taken := runtimes[h.Runtime]; taken {
		h.Shared = true
		other := t.handlers[first]
		other.Shared = true
		t.handlers[first] = other
	} else {
		runtimes[h.Runtime] = h.Name
	}
	t.handlers[h.Name] = h
	if h.Shared || h.Name != h.Runtime {
		t.renames[h.Backend] = true
	}
}

// Resolve returns the handler of that name for something new, "" meaning the
// default one, or an [UnknownHandlerError].
func (t *Table) Resolve(name string) (Handler, error) {
	if name == "" {
		name = t.standard
	}
	h, ok := t.handlers[name]
	if !ok || h.Draining {
		return Handler{}, &UnknownHandlerError{Handler: name, Known: t.names, Draining: ok}
	}
	return h, nil
}

// Find is [Table.Resolve] for what is there already: a handler that drains is
// found too.
func (t *Table) Find(name string) (Handler, error) {
	if h, ok := t.handlers[name]; ok {
		return h, nil
	}
	return t.Resolve(name)
}

// Default returns the default handler.
func (t *Table) Default() Handler { return t.handlers[t.standard] }

// Names returns the names of the configuration's handlers, sorted.
func (t *Table) Names() []string { return t.names }

// Draining returns the names of the handlers that the configuration no longer
// has, sorted.
func (t *Table) Draining() []string { return t.draining }

// Public returns the handler that a backend's runtime stands for: the first by
// name where several do, false where none does.
func (t *Table) Public(backend string, runtime []byte) (string, bool) {
	name, ok := t.public[backend][string(runtime)]
	return name, ok
}

// HandlerOf returns the handler of a sandbox that a backend lists with a runtime;
// "" where there is none. A pod without a RuntimeClass that was made before this
// program came has no runtime there, and is the default handler's.
func (t *Table) HandlerOf(backend, runtime string) string {
	if name, ok := t.public[backend][runtime]; ok {
		return name
	}
	if runtime == "" && t.handlers[t.standard].Backend == backend {
		return t.standard
	}
	return ""
}

// Renames reports whether handler names of this backend differ from the
// runtimes' names, so that its answers must be rewritten.
func (t *Table) Renames(backend string) bool { return t.renames[backend] }
