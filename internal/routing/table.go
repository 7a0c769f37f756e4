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
	// that the backend cannot tell the two apart.
	Shared bool
}

// UnknownHandlerError is a handler name that the configuration does not have.
type UnknownHandlerError struct {
	Handler string
	Known   []string // Sorted.
}

// Error implements error.
func (e *UnknownHandlerError) Error() string {
	return fmt.Sprintf("handler %q is not configured; known: %s", e.Handler, strings.Join(e.Known, ", "))
}

// Table maps handlers to runtimes and back. It is immutable.
type Table struct {
	handlers map[string]Handler
	standard string
	names    []string                     // Sorted.
	public   map[string]map[string]string // Backend → runtime → handler, the first by name.
	renames  map[string]bool              // Backends where a name must be translated.
}

// NewTable reads the handlers of a valid configuration.
func NewTable(cfg *configs.Config) *Table {
	t := &Table{
		handlers: map[string]Handler{},
		standard: cfg.DefaultHandler,
		names:    slices.Sorted(maps.Keys(cfg.Handlers)),
		public:   map[string]map[string]string{},
		renames:  map[string]bool{},
	}
	for _, name := range t.names {
		h := cfg.Handlers[name]
		t.add(Handler{Name: name, Backend: h.Backend, Runtime: h.RuntimeName(name)})
	}
	return t
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

// Resolve returns the handler of that name, "" meaning the default one, or an
// [UnknownHandlerError].
func (t *Table) Resolve(name string) (Handler, error) {
	if name == "" {
		name = t.standard
	}
	h, ok := t.handlers[name]
	if !ok {
		return Handler{}, &UnknownHandlerError{Handler: name, Known: t.names}
	}
	return h, nil
}

// Default returns the default handler.
func (t *Table) Default() Handler { return t.handlers[t.standard] }

// Names returns the handlers' names, sorted.
func (t *Table) Names() []string { return t.names }

// Public returns the handler that a backend's runtime stands for: the first by
// name where several do, false where none does.
func (t *Table) Public(backend string, runtime []byte) (string, bool) {
	name, ok := t.public[backend][string(runtime)]
	return name, ok
}

// Renames reports whether handler names of this backend differ from the
// runtimes' names, so that its answers must be rewritten.
func (t *Table) Renames(backend string) bool { return t.renames[backend] }
