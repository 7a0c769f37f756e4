package handlers

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// featureCache remembers what each backend's runtimes could when it was last
// asked: a backend that is away keeps its handlers in the node's status, or the
// kubelet would say that the handler is not known.
type featureCache struct {
	mu    sync.Mutex
	byKey map[[2]string]*runtimeapi.RuntimeHandlerFeatures // By backend and runtime.
}

func (c *featureCache) put(b string, handlers []*runtimeapi.RuntimeHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = map[[2]string]*runtimeapi.RuntimeHandlerFeatures{}
	}
	for _, h := range handlers {
		c.byKey[[2]string{b, h.GetName()}] = h.GetFeatures()
	}
}

func (c *featureCache) get(b, runtime string) *runtimeapi.RuntimeHandlerFeatures {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[[2]string{b, runtime}]
}

// statusOf answers Status for the node: the default backend's own status, how
// each other backend is, and the handlers by the names that pods use. Whether
// the node is ready is the default backend's word alone, so that another one
// takes down nothing but its own handlers.
func (r *Runtime) statusOf(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.StatusRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	answers, errs := r.askStatus(ctx, call, &request)
	if errs[0] != nil {
		return errs[0]
	}
	merged := answers[0]
	for i, b := range r.Backends.All() {
		if errs[i] == nil {
			r.features.put(b.Name, answers[i].GetRuntimeHandlers())
		}
		if i > 0 {
			mergeStatus(merged, b, answers[i], errs[i])
		}
	}
	merged.RuntimeHandlers = r.handlers()
	return call.Reply(merged)
}

// askStatus asks all backends side by side: the default one for as long as the
// caller waits, the others for at most their list_timeout.
func (r *Runtime) askStatus(ctx context.Context, call *rawcri.Call, request *runtimeapi.StatusRequest) ([]*runtimeapi.StatusResponse, []error) {
	all := r.Backends.All()
	answers := make([]*runtimeapi.StatusResponse, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, b := range all[1:] {
		wg.Go(func() {
			if !b.Up() {
				errs[i+1] = b.Away()
				return
			}
			limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
			defer cancel()
			answers[i+1], errs[i+1] = b.Runtime().Status(limited, request)
			if backend.IsAway(ctx, errs[i+1]) {
				b.Suspect(errs[i+1]) // Or the next status would wait for it again.
			}
		})
	}
	answers[0], errs[0] = r.defaultStatus(ctx, call)
	wg.Wait()
	return answers, errs
}

func (r *Runtime) defaultStatus(ctx context.Context, call *rawcri.Call) (*runtimeapi.StatusResponse, error) {
	frame, err := r.Backends.Invoke(ctx, call, r.Backends.Default(), call.Request)
	if err != nil {
		return nil, err
	}
	defer frame.Free()
	answer := &runtimeapi.StatusResponse{}
	return answer, frame.Decode(answer)
}

// mergeStatus adds one more backend to the node's status.
func mergeStatus(merged *runtimeapi.StatusResponse, b *backend.Backend, answer *runtimeapi.StatusResponse, err error) {
	if merged.GetStatus() == nil {
		merged.Status = &runtimeapi.RuntimeStatus{}
	}
	merged.Status.Conditions = append(merged.Status.Conditions, readiness(b, answer, err))
	if err != nil {
		return // What it could before may still hold: nothing is taken back for a moment's absence.
	}
	merged.Features = and(merged.GetFeatures(), answer.GetFeatures())
	for key, value := range answer.GetInfo() {
		if merged.Info == nil {
			merged.Info = map[string]string{}
		}
		merged.Info[b.Name+"/"+key] = value
	}
}

// readiness is the condition of a backend that is not the default one.
func readiness(b *backend.Backend, answer *runtimeapi.StatusResponse, err error) *runtimeapi.RuntimeCondition {
	c := &runtimeapi.RuntimeCondition{Type: "BackendReady." + b.Name, Status: true}
	if err != nil {
		c.Status, c.Reason, c.Message = false, "BackendAway", err.Error()
		return c
	}
	for _, own := range answer.GetStatus().GetConditions() {
		needed := own.GetType() == runtimeapi.RuntimeReady || own.GetType() == runtimeapi.NetworkReady
		if needed && !own.GetStatus() {
			c.Status, c.Reason = false, own.GetReason()
			c.Message = fmt.Sprintf("%s is false: %s", own.GetType(), own.GetMessage())
		}
	}
	return c
}

// and keeps what both have: the kubelet takes these features for the whole
// node's. nil is a runtime that predates them.
func and(a, b *runtimeapi.RuntimeFeatures) *runtimeapi.RuntimeFeatures {
	if a == nil || b == nil {
		return nil
	}
	both, other := a.ProtoReflect(), b.ProtoReflect()
	fields := both.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Kind() == protoreflect.BoolKind {
			both.Set(f, protoreflect.ValueOfBool(both.Get(f).Bool() && other.Get(f).Bool()))
		}
	}
	both.SetUnknown(nil) // A feature that this program does not know is not known to be both's.
	return a
}

// handlers returns every configured handler with its runtime's features, and
// exactly one without a name: the default. The kubelet looks up the features for
// containers of running pods too, so that those that drain are among them.
func (r *Runtime) handlers() []*runtimeapi.RuntimeHandler {
	standard := r.Table.Default()
	list := []*runtimeapi.RuntimeHandler{{Name: "", Features: r.features.get(standard.Backend, standard.Runtime)}}
	for _, name := range slices.Sorted(slices.Values(slices.Concat(r.Table.Names(), r.draining()))) {
		h, err := r.Table.Find(name)
		if err != nil {
			continue // Names are the table's own.
		}
		list = append(list, &runtimeapi.RuntimeHandler{Name: name, Features: r.features.get(h.Backend, h.Runtime)})
	}
	return list
}

// draining returns the handlers that are no longer configured and of which there
// are pods.
func (r *Runtime) draining() []string {
	if len(r.Table.Draining()) == 0 {
		return nil
	}
	loads := r.Index.Loads()
	return slices.DeleteFunc(slices.Clone(r.Table.Draining()), func(name string) bool { return loads[name].Sandboxes == 0 })
}
