package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// flushPause is how often records are tried again that the disk did not take.
const flushPause = 5 * time.Second

// Options are what the engine needs. All but NodeIP, Warn and Span are required.
type Options struct {
	Handlers map[string]configs.Handler
	Journal  *journal.Journal
	Clock    Clock
	// Backend returns the client of the runtime that has a container, or a
	// sandbox when the container's id is "".
	Backend func(ctx context.Context, c Container) (runtimeapi.RuntimeServiceClient, error)
	// NodeIP is the address of pods in the host's network; "" while it is not known.
	NodeIP func() string
	// Warn makes a Kubernetes Event on a pod. It must not block.
	Warn func(pod journal.Pod, reason, message string)

	// Span, if not nil, begins the span of a hook's delivery; attributes are names
	// and values by turns.
	Span func(ctx context.Context, name string, attributes ...string) (_ context.Context, end func(err error, attributes ...string))

	Registerer prometheus.Registerer
	Log        *logrus.Entry
}

// Engine delivers hooks and owns the stops of containers. It is made by [New],
// works while [Engine.Run] runs, and is safe for concurrent use.
type Engine struct {
	Options

	metrics  *metrics
	http     *http.Client
	handlers atomic.Pointer[map[string]configs.Hooks]
	tasks    chan func(context.Context) // Run starts them.
	old      leftover
	ended    chan struct{} // Run has ended, or is about to.

	mu          sync.Mutex
	stops       map[string]*stop          // By container, as all below.
	launches    map[string]*launch        //
	annotations map[string]podAnnotations // Of containers that were not started yet.
	execs       map[string]int            // The kubelet's own PreStops that run now.
	deliveries  map[string]context.CancelCauseFunc
	unsaved     map[string]journal.Record // By delivery id.
}

// New returns an engine that knows what the last process has left behind. Stops
// that this one accepted can be joined at once; nothing is done before Run.
func New(o Options) (*Engine, error) {
	if o.Journal == nil || o.Clock.Boot == nil || o.Backend == nil || o.Registerer == nil || o.Log == nil {
		return nil, errors.New("hooks: the options need a journal, a clock, backends, a registerer and a logger")
	}
	if o.NodeIP == nil {
		o.NodeIP = func() string { return "" }
	}
	if o.Warn == nil {
		o.Warn = func(journal.Pod, string, string) {}
	}
	if o.Span == nil {
		o.Span = func(ctx context.Context, _ string, _ ...string) (context.Context, func(error, ...string)) {
			return ctx, func(error, ...string) {}
		}
	}
	e := &Engine{
		Options: o, http: newHTTPClient(),
		tasks: make(chan func(context.Context)), ended: make(chan struct{}),
		stops: map[string]*stop{}, launches: map[string]*launch{}, annotations: map[string]podAnnotations{},
		execs: map[string]int{}, deliveries: map[string]context.CancelCauseFunc{}, unsaved: map[string]journal.Record{},
	}
	e.metrics = newMetrics(o.Registerer, o.Journal)
	e.Configure(o.Handlers)
	return e, e.recall()
}

// Configure replaces what is configured. Hooks that were promised before are
// delivered as they were promised.
func (e *Engine) Configure(handlers map[string]configs.Handler) {
	hooks := map[string]configs.Hooks{}
	for name, h := range handlers {
		hooks[name] = h.Hooks
		if hasAny(h.Hooks) {
			e.metrics.expect(name)
		}
	}
	e.handlers.Store(&hooks)
}

func (e *Engine) config(handler string) configs.Hooks { return (*e.handlers.Load())[handler] }

// Has reports whether the calls about a handler's containers are to come here:
// it has hooks, or had some that are not finished.
func (e *Engine) Has(handler string) bool {
	return hasAny(e.config(handler)) || e.anyUnderWay(func(c Container) bool { return c.Handler == handler })
}

// hasAny reports whether a handler's containers can have hooks.
func hasAny(h configs.Hooks) bool {
	return len(h.PostStart)+len(h.PreStop) > 0 || h.AllowPodHooks || h.PodPreStop == configs.PodPreStopEnsure
}

// Owns reports whether a container, or one of a sandbox, has a stop or PostStart
// hooks under way, so that calls about the two are to come here whatever the
// handler is by now.
func (e *Engine) Owns(id string) bool {
	return e.anyUnderWay(func(c Container) bool { return c.ID == id || c.Sandbox == id })
}

// IsBusy reports whether anything is under way.
func (e *Engine) IsBusy() bool {
	return e.anyUnderWay(func(Container) bool { return true })
}

func (e *Engine) anyUnderWay(isMeant func(Container) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.stops {
		if isMeant(s.Container) {
			return true
		}
	}
	for _, l := range e.launches {
		if isMeant(l.Container) {
			return true
		}
	}
	return false
}

// Run delivers until ctx ends, first what the last process has left behind.
// What is not finished then stays in the journal.
func (e *Engine) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer close(e.ended)
	for _, task := range e.leftovers() {
		running.Go(func() { task(ctx) })
	}
	running.Go(func() { e.flushAgain(ctx) })
	for {
		select {
		case task := <-e.tasks:
			running.Go(func() { task(ctx) })
		case <-ctx.Done():
			return nil
		}
	}
}

// flushAgain tries, every now and then, what the disk did not take.
func (e *Engine) flushAgain(ctx context.Context) {
	tick := time.NewTicker(flushPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.flush(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// spawn has Run start a task, which ends with Run and not with ctx. What the task
// calls belongs to the caller's trace.
func (e *Engine) spawn(ctx context.Context, task func(context.Context)) error {
	select {
	case e.tasks <- func(running context.Context) { task(traced(running, ctx)) }:
		return nil
	case <-e.ended:
		return errShutdown
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

var errShutdown = status.Error(codes.Unavailable, "cri-proxy is shutting down: what was accepted goes on when it is back")

// Check refuses a container whose pod has annotations about hooks that are
// malformed or that the handler does not honour, with InvalidArgument. It reads
// the request only. Names of other containers cannot be checked: no CRI call
// tells them.
func (e *Engine) Check(handler string, request *runtimeapi.CreateContainerRequest) error {
	pod, container := request.GetSandboxConfig().GetAnnotations(), request.GetConfig()
	text, hasHooks := pod[Annotation]
	optOut, hasOptOut := pod[OptOutAnnotation]
	if !hasHooks && !hasOptOut {
		return nil
	}
	h, name := e.config(handler), container.GetMetadata().GetName()
	refuse := func(annotation, format string, args ...any) error {
		return status.Errorf(codes.InvalidArgument, "annotation %s of the pod, container %q: %s", annotation, name, fmt.Sprintf(format, args...))
	}
	switch {
	case hasHooks && !h.AllowPodHooks:
		return refuse(Annotation, "handler %q does not allow hooks of pods; its allow_pod_hooks is false", handler)
	case hasOptOut && optOut != "true" && optOut != "false":
		return refuse(OptOutAnnotation, "it is %q, it must be \"true\" or \"false\"", optOut)
	case optOut == "true" && !h.AllowOptOut:
		return refuse(OptOutAnnotation, "handler %q does not allow pods to refuse its hooks; its allow_opt_out is false", handler)
	}
	all, err := podHooks(text)
	if err != nil {
		return refuse(Annotation, "%v", err)
	}
	ports := container.GetAnnotations()[portsAnnotation]
	if _, err = fromPod(all[name].PostStart, journal.PostStart, ports); err == nil {
		_, err = fromPod(all[name].PreStop, journal.PreStop, ports)
	}
	if err != nil {
		return refuse(Annotation, "%v", err)
	}
	return nil
}

// Created remembers the pod's annotations about hooks for a container that a
// request which passed Check has made: the runtime keeps only those that the pod
// had when its sandbox was made. Where the pod got other ones since, they are put
// on disk, so that they count as well should this program die before the start.
// That a pod has none any more is in memory only, which costs others no question.
func (e *Engine) Created(ctx context.Context, c Container, request *runtimeapi.CreateContainerRequest) {
	h := e.config(c.Handler)
	if !h.AllowPodHooks && !h.AllowOptOut || !e.Has(c.Handler) {
		return
	}
	values := aboutHooks(request.GetSandboxConfig().GetAnnotations())
	e.mu.Lock()
	e.annotations[c.ID] = podAnnotations{sandbox: c.Sandbox, values: values}
	e.mu.Unlock()
	if values[Annotation] == "" && values[OptOutAnnotation] == "" {
		return
	}
	if err := e.keepAnnotations(ctx, c, values); err != nil {
		e.Log.WithError(err).WithField("container", c.ID).Warn("the pod's annotations about hooks cannot be recorded: those of its sandbox count if cri-proxy ends before the container is started")
	}
}

func (e *Engine) keepAnnotations(ctx context.Context, c Container, values map[string]string) error {
	t, err := e.look(ctx, c)
	if err != nil || maps.Equal(values, aboutHooks(t.pod.GetAnnotations())) {
		return err
	}
	return e.Journal.Update(func(tx *journal.Tx) error { return t.putAnnotations(tx, values) })
}

// podAnnotations are those of a container's pod about hooks.
type podAnnotations struct {
	sandbox string
	values  map[string]string
}

// aboutHooks has both keys always, so that one that is missing is known to be.
func aboutHooks(annotations map[string]string) map[string]string {
	return map[string]string{Annotation: annotations[Annotation], OptOutAnnotation: annotations[OptOutAnnotation]}
}

func (e *Engine) created(container string) (map[string]string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a, ok := e.annotations[container]
	return a.values, ok
}

// ForgetContainer drops what is kept about a container that was removed.
func (e *Engine) ForgetContainer(id string) {
	e.forget(func(container, _ string) bool { return container == id })
}

// ForgetSandbox drops what is kept about the containers of a sandbox that was removed.
func (e *Engine) ForgetSandbox(id string) {
	e.forget(func(_, sandbox string) bool { return sandbox == id })
}

func (e *Engine) forget(isGone func(container, sandbox string) bool) {
	e.mu.Lock()
	maps.DeleteFunc(e.annotations, func(id string, a podAnnotations) bool { return isGone(id, a.sandbox) })
	e.mu.Unlock()
	known, err := e.Journal.Containers()
	gone := slices.DeleteFunc(known, func(c journal.Container) bool { return c.Stop != nil || !isGone(c.ID, c.Sandbox) })
	if err == nil && len(gone) > 0 {
		err = e.Journal.Update(func(tx *journal.Tx) error {
			for _, c := range gone {
				if err := tx.Forget(c.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		e.Log.WithError(err).Warn("what was known of removed containers stays until the next start")
	}
}
