package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// leftoverPatience is how long the kubelet's collection may take. A containerd whose
// caller dies in the middle of a StartContainer says of that container for some
// minutes that it cannot be removed since its task runs.
const leftoverPatience = 10 * time.Minute

// faultsLast is how long faults go on: in full, and with -short.
const (
	faultsLast      = 5 * time.Minute
	faultsLastShort = time.Minute
)

// testProxyKilled kills the proxy again and again, and starts it at once as
// systemd does.
func testProxyKilled(ctx context.Context, t *testing.T, c *cluster) {
	testFaults(ctx, t, c, 20*time.Second, func(ctx context.Context) error {
		return errors.Join(c.proxy.Kill(), c.proxy.Start(ctx))
	})
}

// testBackendRestarted starts one of the two containerds again and again.
func testBackendRestarted(ctx context.Context, t *testing.T, c *cluster) {
	testFaults(ctx, t, c, 30*time.Second, func(ctx context.Context) error {
		return errors.Join(c.beta.Stop(), c.beta.Start(ctx))
	})
}

// testFaults lets pods come and go while others stay, all with a fault every so
// often. Those that stay must not notice, those that come run once, those that go
// leave nothing behind, and the node is ready all the time.
func testFaults(ctx context.Context, t *testing.T, c *cluster, every time.Duration, fault func(context.Context) error) {
	last := faultsLast
	if testing.Short() {
		last = faultsLastShort
	}
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	steady := s.steady(ctx, t, image)
	since := s.nodeReadySince(ctx, t)
	watch := s.watch(ctx, t)
	ended, faults := time.Now().Add(last), make(chan error, 1)
	go func() { faults <- repeat(ctx, last, every, fault) }()
	rounds := 0
	for ; time.Now().Before(ended); rounds++ {
		s.comeAndGo(ctx, t, rounds, image)
	}
	if err := <-faults; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pods of each handler came and went", rounds)
	for name, before := range steady {
		now := s.ready(ctx, t, name)
		if containerID(now) != containerID(before) || restarts(now) != 0 {
			t.Errorf("pod %s has container %s after %d restarts, it had %s", name, containerID(now), restarts(now), containerID(before))
		}
	}
	if now := s.nodeReadySince(ctx, t); !now.Equal(since) {
		t.Errorf("the node became ready at %s, it was ready since %s: it was not ready in between", now, since)
	}
	s.waitWithin(ctx, t, leftoverPatience, func() error { return watch.onlyOf(steady) })
	watch.end(t)
}

// repeat lets a fault happen every so often, the first one at once.
func repeat(ctx context.Context, last, every time.Duration, fault func(context.Context) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for end := time.Now().Add(last); time.Now().Before(end); {
		if err := fault(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// steady are pods that stay, two of each handler.
func (s *space) steady(ctx context.Context, t *testing.T, image string) map[string]*corev1.Pod {
	t.Helper()
	pods := map[string]*corev1.Pod{}
	for _, handler := range handlers() {
		for i := range 2 {
			pod := s.pod(fmt.Sprintf("steady-%s-%d", handler, i), handler, image)
			s.create(ctx, t, pod)
			pods[pod.Name] = nil
		}
	}
	for name := range pods {
		pods[name] = s.ready(ctx, t, name)
	}
	return pods
}

// comeAndGo makes a pod of each handler, and removes both.
func (s *space) comeAndGo(ctx context.Context, t *testing.T, round int, image string) {
	t.Helper()
	var names []string
	for _, handler := range handlers() {
		pod := s.pod(fmt.Sprintf("passing-%s-%d", handler, round), handler, image)
		s.create(ctx, t, pod)
		names = append(names, pod.Name)
	}
	s.ready(ctx, t, names...)
	s.mustKubectl(ctx, t, append([]string{"delete", "pods", "--wait=false"}, names...)...)
	for _, name := range names {
		s.gone(ctx, t, name)
	}
}

// nodeReadySince is when the node became ready.
func (s *space) nodeReadySince(ctx context.Context, t *testing.T) time.Time {
	t.Helper()
	node, err := s.Client.CoreV1().Nodes().Get(ctx, rig.NodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return condition.LastTransitionTime.Time
		}
	}
	t.Fatalf("the node is not ready: %+v", node.Status.Conditions)
	return time.Time{}
}

// uids are those of the pods.
func uids(pods map[string]*corev1.Pod) string {
	var all []string
	for _, pod := range pods {
		all = append(all, string(pod.UID))
	}
	return strings.Join(all, " ")
}
