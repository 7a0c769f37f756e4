package hooks

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/json"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// lookTimeout bounds the two questions about a container.
const lookTimeout = 10 * time.Second

// Container names a container by its full ids. Handler is the public name.
type Container struct {
	ID      string
	Sandbox string
	Handler string
}

// target is a container as its runtime tells it.
type target struct {
	Container

	client      runtimeapi.RuntimeServiceClient
	status      *runtimeapi.ContainerStatus
	pod         *runtimeapi.PodSandboxStatus
	annotations map[string]string // The pod's, as of the container's creation.
	seen        bool              // The kubelet ran the exec PreStop of the pod.
}

func (t *target) running() bool {
	return t.status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
}

func (t *target) podRef() journal.Pod {
	m := t.pod.GetMetadata()
	return journal.Pod{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid()}
}

// known is what the journal has about the container, to add to.
func (t *target) known(tx *journal.Tx) (journal.Container, error) {
	c, _, err := tx.Container(t.ID)
	c.ID, c.Sandbox, c.Handler, c.Pod, c.Name = t.ID, t.Sandbox, t.Handler, t.podRef(), t.status.GetMetadata().GetName()
	return c, err
}

// putAnnotations records those about hooks that the pod has and its sandbox has not.
func (t *target) putAnnotations(tx *journal.Tx, annotations map[string]string) error {
	c, err := t.known(tx)
	if err != nil {
		return err
	}
	c.Annotations = annotations
	return tx.PutContainer(c)
}

// grace is the pod's grace period; Kubernetes' default if it is not told.
func (t *target) grace() time.Duration {
	seconds, err := strconv.Atoi(t.status.GetAnnotations()[graceAnnotation])
	if err != nil || seconds < 0 {
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
	return time.Duration(seconds) * time.Second
}

// look asks the runtime about a container.
func (e *Engine) look(ctx context.Context, c Container) (*target, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	client, err := e.Backend(ctx, c)
	if err != nil {
		return nil, err
	}
	t := &target{Container: c, client: client}
	answer, err := client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		return t, err
	}
	t.status = answer.GetStatus()
	pod, err := client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: c.Sandbox})
	if status.Code(err) == codes.NotFound { // That would mean the container's.
		err = status.Errorf(codes.Internal, "the runtime has container %q, and not its sandbox %q", c.ID, c.Sandbox)
	}
	if err != nil {
		return t, err
	}
	t.pod, t.annotations = pod.GetStatus(), pod.GetStatus().GetAnnotations()
	known, ok, err := e.Journal.Container(c.ID)
	if err != nil {
		return t, fmt.Errorf("read what is known of container %q: %w", c.ID, err)
	}
	if ok {
		t.seen = known.Seen
		if known.Annotations != nil {
			t.annotations = known.Annotations
		}
	}
	if created, ok := e.created(c.ID); ok {
		t.annotations = created
	}
	return t, nil
}

// isRunning asks only for the state. A runtime that does not answer says nothing
// against it.
func isRunning(ctx context.Context, client runtimeapi.RuntimeServiceClient, container string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	answer, err := client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		return status.Code(err) != codes.NotFound
	}
	return answer.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// owed returns the records of the hooks that a container's event calls for: the
// node's as written, then the pod's. The error is that of the pod's annotation;
// the node's hooks come with it all the same.
func (e *Engine) owed(t *target, event journal.Event) ([]journal.Record, error) {
	h := e.config(t.Handler)
	hooks := nodeHooks(h, t, event)
	own, err := ownHooks(h, t, event)
	return e.records(t, event, append(hooks, own...)), err
}

func (*Engine) records(t *target, event journal.Event, hooks []journal.Hook) []journal.Record {
	all := make([]journal.Record, 0, len(hooks))
	for i, h := range hooks {
		all = append(all, journal.Record{
			ID: journal.DeliveryID(t.ID, event, h), Container: t.ID, Sandbox: t.Sandbox, Handler: t.Handler,
			Pod: t.podRef(), ContainerName: t.status.GetMetadata().GetName(), Event: event, Position: i, Hook: h,
			State: journal.Pending, Accepted: time.Now(),
		})
	}
	return all
}

func nodeHooks(h configs.Hooks, t *target, event journal.Event) []journal.Hook {
	if h.AllowOptOut && t.annotations[OptOutAnnotation] == "true" {
		return nil
	}
	var hooks []journal.Hook
	if event == journal.PreStop {
		for _, hook := range h.PreStop {
			if matches(hook.Match, t) {
				hooks = append(hooks, fromConfig(hook))
			}
		}
		return hooks
	}
	for _, hook := range h.PostStart {
		if matches(hook.Match, t) {
			made := fromConfig(hook.Hook)
			made.Wait, made.Kill = hook.Wait, hook.OnFailure == configs.OnFailureKill
			hooks = append(hooks, made)
		}
	}
	return hooks
}

func matches(m configs.Match, t *target) bool {
	fits := func(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }
	for key, value := range m.Labels {
		if got, ok := t.pod.GetLabels()[key]; !ok || got != value {
			return false
		}
	}
	return fits(m.Containers, t.status.GetMetadata().GetName()) && fits(m.Namespaces, t.pod.GetMetadata().GetNamespace())
}

func fromConfig(h configs.Hook) journal.Hook {
	made := journal.Hook{
		Name: h.Name, Source: journal.FromNode, Timeout: h.Timeout.Duration, Attempts: h.Attempts, Backoff: h.Backoff.Duration,
	}
	switch {
	case h.Exec != nil:
		made.Exec = h.Exec.Command
	case h.HTTPGet != nil:
		made.HTTPGet = &journal.HTTPGet{Scheme: h.HTTPGet.Scheme, Host: h.HTTPGet.Host, Port: h.HTTPGet.Port, Path: h.HTTPGet.Path}
		for _, header := range h.HTTPGet.Headers {
			made.HTTPGet.Headers = append(made.HTTPGet.Headers, journal.Header{Name: header.Name, Value: header.Value})
		}
	case h.Sleep != nil:
		made.Sleep = time.Duration(h.Sleep.Seconds) * time.Second
	}
	return made
}

// ownHooks are those of the pod's annotation, where it is allowed.
func ownHooks(h configs.Hooks, t *target, event journal.Event) ([]journal.Hook, error) {
	if !h.AllowPodHooks {
		return nil, nil
	}
	name := t.status.GetMetadata().GetName()
	all, err := podHooks(t.annotations[Annotation])
	if err != nil {
		return nil, annotationError(name, err)
	}
	list := all[name].PreStop
	if event == journal.PostStart {
		list = all[name].PostStart
	}
	hooks, err := fromPod(list, event, t.status.GetAnnotations()[portsAnnotation])
	if err != nil {
		return nil, annotationError(name, err)
	}
	return hooks, nil
}

// fromPod makes hooks of those in the annotation. As in Kubernetes, a PostStart
// that fails ends the container, and only the grace period bounds a PreStop.
func fromPod(list []corev1.LifecycleHandler, event journal.Event, ports string) ([]journal.Hook, error) {
	var hooks []journal.Hook
	for i, handler := range list {
		hook, err := fromHandler(handler, ports)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", event, i, err)
		}
		hook.Name, hook.Source = strconv.Itoa(i), journal.FromPod
		if event == journal.PostStart {
			hook.Timeout, hook.Wait, hook.Kill = podTimeout, true, true
			if hook.Sleep > 0 {
				hook.Timeout = 0
			}
		}
		hooks = append(hooks, hook)
	}
	return hooks, nil
}

func annotationError(container string, err error) error {
	return status.Errorf(codes.InvalidArgument, "annotation %s of the pod, container %q: %v", Annotation, container, err)
}

// ensured is the pod's own PreStop, where the handler wants it ensured and the
// kubelet has not run it. See [configs.PodPreStopEnsure].
func (e *Engine) ensured(t *target, asked time.Duration) ([]journal.Hook, error) {
	text := t.status.GetAnnotations()[preStopAnnotation]
	if e.config(t.Handler).PodPreStop != configs.PodPreStopEnsure || text == "" {
		return nil, nil
	}
	var handler corev1.LifecycleHandler
	if err := json.UnmarshalCaseSensitivePreserveInts([]byte(text), &handler); err != nil {
		return nil, fmt.Errorf("annotation %s cannot be read: %w", preStopAnnotation, err)
	}
	switch {
	case handler.Exec != nil && (t.seen || e.execRunning(t.ID)):
		return nil, nil
	case handler.HTTPGet != nil && asked > shortStop, handler.Exec == nil && handler.HTTPGet == nil:
		return nil, nil // The kubelet may have run it unseen, and a sleep has no effect worth repeating.
	}
	host := ""
	if handler.HTTPGet != nil { // The kubelet would send it anywhere, so this is nothing new.
		host, handler.HTTPGet.Host = handler.HTTPGet.Host, ""
	}
	if err := checkHandler(handler); err != nil {
		return nil, err
	}
	hook, err := fromHandler(handler, t.status.GetAnnotations()[portsAnnotation])
	if err != nil {
		return nil, err
	}
	if hook.HTTPGet != nil {
		hook.HTTPGet.Host = host
	}
	hook.Name, hook.Source = "preStop", journal.Ensured
	return []journal.Hook{hook}, nil
}
