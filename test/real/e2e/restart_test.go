package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// user is who the image says its programs run as.
const user = "1234"

// testKubeletRestart starts the kubelet again over pods of each handler with
// every pull policy, and then lets each of their containers crash. None is
// refused its image, and none becomes root.
func testKubeletRestart(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	before := map[string]*corev1.Pod{}
	for _, handler := range handlers() {
		for _, policy := range []corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever} {
			pod := s.policied(ctx, t, handler, policy)
			s.create(ctx, t, pod)
			before[pod.Name] = nil
		}
	}
	for name := range before {
		before[name] = s.ready(ctx, t, name)
		s.wantUser(ctx, t, name)
	}
	restartKubelet(ctx, t, c)
	for name, pod := range before {
		if now := s.ready(ctx, t, name); containerID(now) != containerID(pod) {
			t.Errorf("pod %s has another container after the restart of the kubelet", name)
		}
		s.crash(ctx, t, pod)
	}
	for name, pod := range before {
		s.until(ctx, t, name, func(now *corev1.Pod) error {
			if containerID(now) == containerID(pod) || restarts(now) == 0 {
				return fmt.Errorf("pod %s has not started again", name)
			}
			return isReady(now)
		})
		s.wantUser(ctx, t, name)
	}
	s.noEvent(ctx, t, "ErrImageNeverPull")
}

// policied is a pod with an image of its own. Where that is never pulled it is in
// the store of the pod's handler already, and in no other one.
func (s *space) policied(ctx context.Context, t *testing.T, handler string, policy corev1.PullPolicy) *corev1.Pod {
	t.Helper()
	name := strings.ToLower(handler + "-" + string(policy))
	image := "example.test/" + s.name + "/" + name + ":v1"
	if _, err := s.Push(ctx, image, rig.Image{User: user}); err != nil {
		t.Fatal(err)
	}
	if policy == corev1.PullNever {
		if _, err := s.crictl(t, handler).Run(ctx, "pull", image); err != nil {
			t.Fatal(err)
		}
	}
	pod := s.pod(name, handler, image)
	pod.Spec.Containers[0].ImagePullPolicy = policy
	return pod
}

// crictl speaks to the containerd of a handler, past the proxy.
func (s *space) crictl(t *testing.T, handler string) rig.Crictl {
	t.Helper()
	endpoint := s.alpha.Endpoint()
	if handler == gvisor {
		endpoint = s.beta.Endpoint()
	}
	crictl, err := s.Crictl(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return crictl
}

// crash kills the process of a pod's container.
func (s *space) crash(ctx context.Context, t *testing.T, pod *corev1.Pod) {
	t.Helper()
	_, id, _ := strings.Cut(containerID(pod), "://")
	var answer struct{ Info struct{ Pid int } }
	if err := s.crictl(t, *pod.Spec.RuntimeClassName).JSON(ctx, &answer, "inspect", id); err != nil {
		t.Fatal(err)
	}
	if answer.Info.Pid <= 1 {
		t.Fatalf("container %s has the process %d", id, answer.Info.Pid)
	}
	if err := syscall.Kill(answer.Info.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (s *space) wantUser(ctx context.Context, t *testing.T, pod string) {
	t.Helper()
	wantContains(t, s.mustKubectl(ctx, t, "exec", pod, "--", "/bin/id"), "uid="+user+" ")
}
