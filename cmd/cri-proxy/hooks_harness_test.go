package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// hooked runs the daemon in front of one backend with two handlers: runc, to
// whose hooks the configuration given adds, and plain, which has none.
func hooked(t *testing.T, handlers string) (*proxy, *fakeruntime.Runtime) {
	t.Helper()
	return hookedWith(t, "", handlers)
}

// hookedWith is the same with more at the top of the configuration.
func hookedWith(t *testing.T, top, handlers string) (*proxy, *fakeruntime.Runtime) {
	t.Helper()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc", "plain"}})
	alpha.AddImage("app", nil)
	return startProxy(t, top+`
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.plain]
backend = "alpha"
[handlers.runc]
backend = "alpha"
`+handlers), alpha
}

// hook is a table of a hook for the handler runc.
func hook(event, action string, more ...string) string {
	return fmt.Sprintf("[[handlers.runc.hooks.%s]]\nname = %q\n%s\n%s\n", event, event, action, strings.Join(more, "\n"))
}

// command is the action of a hook, run by the fake runtime; see fakeruntime.Echo.
func command(words ...string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		quoted = append(quoted, strconv.Quote(w))
	}
	return "exec = { command = [" + strings.Join(quoted, ", ") + "] }"
}

// receiver is a server for hooks.
type receiver struct {
	t    *testing.T
	port int
	// arrived has the header of each request.
	arrived chan http.Header
}

// receive starts a receiver that answers when hold is closed; nil is at once.
func receive(t *testing.T, hold <-chan struct{}) *receiver {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return receiveOn(t, listener, hold)
}

func receiveOn(t *testing.T, listener net.Listener, hold <-chan struct{}) *receiver {
	t.Helper()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the address of a listener is %v", listener.Addr())
	}
	r := &receiver{t: t, port: address.Port, arrived: make(chan http.Header, 100)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		r.arrived <- q.Header.Clone()
		if hold != nil {
			select {
			case <-hold:
			case <-q.Context().Done():
			}
		}
	}))
	closeOf(t, server.Listener.Close)
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return r
}

// action is a hook to the receiver.
func (r *receiver) action() string {
	return fmt.Sprintf("http_get = { host = \"127.0.0.1\", port = %d, path = \"/hook\" }", r.port)
}

// next waits for the next request.
func (r *receiver) next() http.Header {
	r.t.Helper()
	select {
	case h := <-r.arrived:
		return h
	case <-time.After(10 * time.Second):
		r.t.Fatal("no request of a hook within ten seconds")
		return nil
	}
}

// none fails the test if a request came that nobody waited for.
func (r *receiver) none() {
	r.t.Helper()
	select {
	case h := <-r.arrived:
		r.t.Errorf("one more request came: %v", h)
	default:
	}
}

// container creates a container of a pod of its own.
func (p *proxy) container(handler string) (sandbox, container string) {
	p.t.Helper()
	sandbox = p.run(handler, handler)
	return sandbox, p.create(sandbox, handler, "c")
}

// started creates a container and starts it.
func (p *proxy) started(handler string) (sandbox, container string) {
	p.t.Helper()
	sandbox, container = p.container(handler)
	if err := p.startContainer(container); err != nil {
		p.t.Fatal(err)
	}
	return sandbox, container
}

func (p *proxy) startContainer(id string) error {
	_, err := p.runtime.StartContainer(p.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

func (p *proxy) stopContainer(id string, timeout int64) error {
	_, err := p.runtime.StopContainer(p.t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: timeout})
	return err
}

// async runs f beside the test, which waits for what it returns.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// pending fails the test if something has ended that should wait.
func pending(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s has ended already: %v", what, err)
	default:
	}
}

// deliveries asks the daemon for its hooks.
func (p *proxy) deliveries() []hooks.Entry {
	p.t.Helper()
	return deliveriesOf(p.t, filepath.Join(p.dir, "a"))
}

func deliveriesOf(t *testing.T, socket string) []hooks.Entry {
	t.Helper()
	body, err := admin.Get(t.Context(), socket, "/v1/hooks")
	var report hooks.Report
	if err := errors.Join(err, json.Unmarshal(body, &report)); err != nil {
		t.Fatalf("GET /v1/hooks: %v\n%s", err, body)
	}
	return report.Hooks
}

// delivery waits until the hook of an event has come to a state.
func (p *proxy) delivery(event journal.Event, want journal.State) hooks.Entry {
	p.t.Helper()
	var found hooks.Entry
	eventually(p.t, fmt.Sprintf("the %s hook is %s", event, want), func() bool {
		for _, e := range p.deliveries() {
			if e.Event == event {
				found = e
			}
		}
		return found.State == want
	})
	return found
}

// isRunning asks the fake runtime itself.
func isRunning(t *testing.T, r *fakeruntime.Runtime, id string) bool {
	t.Helper()
	for _, c := range r.Containers() {
		if c.GetId() == id {
			return c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
		}
	}
	return false
}

// stops are the time-outs of the StopContainer calls that a runtime got.
func stops(r *fakeruntime.Runtime) []int64 {
	var timeouts []int64
	for _, c := range r.Calls("StopContainer") {
		if request, ok := c.Request.(*runtimeapi.StopContainerRequest); ok {
			timeouts = append(timeouts, request.GetTimeout())
		}
	}
	return timeouts
}

// executed waits until a runtime was asked to run n commands.
func executed(t *testing.T, r *fakeruntime.Runtime, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := r.WaitCalls(ctx, "ExecSync", n); err != nil {
		t.Fatal(err)
	}
}

// commits counts what was written to the state file so far.
func (p *proxy) commits() int {
	p.t.Helper()
	var id int
	if err := p.daemon.store.View(func(tx *bolt.Tx) error {
		id = tx.ID()
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	return id
}
