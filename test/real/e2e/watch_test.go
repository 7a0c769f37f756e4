package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// lookEvery is how often the containerds are looked at.
const lookEvery = 500 * time.Millisecond

// watch looks past the proxy at what both containerds have of a namespace.
type watch struct {
	namespace string
	conns     []*grpc.ClientConn
	cancel    context.CancelFunc
	done      chan struct{}

	mu     sync.Mutex
	made   map[string]string   // container id by pod uid, container name and attempt
	double map[string]struct{} // what was there twice
	last   map[string]string   // what there is of the pods: what it is, by id
}

func (s *space) watch(ctx context.Context, t *testing.T) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{
		namespace: s.name, cancel: cancel, done: make(chan struct{}), made: map[string]string{}, double: map[string]struct{}{},
	}
	for _, containerd := range []*rig.Containerd{s.alpha, s.beta} {
		conn, err := rig.Dial(containerd.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		w.conns = append(w.conns, conn)
	}
	go w.run(ctx)
	return w
}

func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// end says what was there twice.
func (w *watch) end(t *testing.T) {
	t.Helper()
	w.cancel()
	<-w.done
	for _, conn := range w.conns {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	for what := range w.double {
		t.Errorf("there was twice: %s", what)
	}
	if len(w.made) == 0 {
		t.Error("no container was seen")
	}
}

// look lists both containerds. One that is away now is seen the next time.
func (w *watch) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found, running := map[string]string{}, map[string]string{}
	for _, conn := range w.conns {
		client := runtimeapi.NewRuntimeServiceClient(conn)
		containers, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
		pods, podsErr := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if errors.Join(err, podsErr) != nil {
			return
		}
		for _, c := range containers.GetContainers() {
			w.container(c, found, running)
		}
		for _, p := range pods.GetItems() {
			if p.GetMetadata().GetNamespace() == w.namespace {
				found[p.GetId()] = fmt.Sprintf("sandbox of %s %s, %s", p.GetMetadata().GetName(), p.GetMetadata().GetUid(), p.GetState())
			}
		}
	}
	w.last = found
}

func (w *watch) container(c *runtimeapi.Container, found, running map[string]string) {
	labels := c.GetLabels()
	if labels["io.kubernetes.pod.namespace"] != w.namespace {
		return
	}
	of := labels["io.kubernetes.pod.name"] + " " + labels["io.kubernetes.pod.uid"] + " " + c.GetMetadata().GetName()
	found[c.GetId()] = fmt.Sprintf("container of %s, %s", of, c.GetState())
	w.once(w.made, fmt.Sprintf("%s, attempt %d", of, c.GetMetadata().GetAttempt()), c.GetId())
	if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
		w.once(running, of+", running", c.GetId())
	}
}

func (w *watch) once(seen map[string]string, what, id string) {
	if other, ok := seen[what]; ok && other != id {
		w.double[fmt.Sprintf("%s: %s and %s", what, other, id)] = struct{}{}
	}
	seen[what] = id
}

// onlyOf says what there is beside that of the pods.
func (w *watch) onlyOf(pods map[string]*corev1.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := uids(pods)
	if len(w.last) == 0 {
		return errors.New("the containerds have not been listed yet")
	}
	for id, what := range w.last {
		if uid := strings.Fields(what)[3]; !strings.Contains(known, strings.TrimSuffix(uid, ",")) {
			return fmt.Errorf("there is still %s, the %s", id, what)
		}
	}
	return nil
}
