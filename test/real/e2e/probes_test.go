package e2e_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

func execProbe(command ...string) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}, PeriodSeconds: 1, TimeoutSeconds: 5}
}

func httpProbe(path string) *corev1.Probe {
	action := &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: action}, PeriodSeconds: 1, TimeoutSeconds: 5}
}

func tcpProbe() *corev1.Probe {
	action := &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: action}, PeriodSeconds: 1, TimeoutSeconds: 5}
}

func grpcProbe() *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}, PeriodSeconds: 1, TimeoutSeconds: 5}
}

// testProbes: on each handler, a pod whose probes of every kind succeed is ready
// when its readiness probe is, and one whose liveness probe fails starts again.
func testProbes(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	for _, handler := range handlers() {
		good, bad := s.pod("good-"+handler, handler, image), s.pod("bad-"+handler, handler, image)
		good.Spec.Containers[0].StartupProbe = tcpProbe()
		good.Spec.Containers[0].LivenessProbe = httpProbe("/status/200")
		if handler == gvisor {
			good.Spec.Containers[0].StartupProbe = grpcProbe()
		}
		good.Spec.Containers[0].ReadinessProbe = execProbe("/bin/cat", "/tmp/ready")
		bad.Spec.Containers[0].LivenessProbe = execProbe("/bin/exit", "1")
		if handler == gvisor {
			bad.Spec.Containers[0].LivenessProbe = httpProbe("/status/500")
		}
		s.create(ctx, t, good, bad)
	}
	for _, handler := range handlers() {
		s.testReadiness(ctx, t, "good-"+handler)
		s.until(ctx, t, "bad-"+handler, func(pod *corev1.Pod) error {
			if restarts(pod) == 0 {
				return fmt.Errorf("pod %s has not started again", pod.Name)
			}
			return nil
		})
		s.event(ctx, t, "bad-"+handler, "Unhealthy", "Liveness probe failed")
	}
}

// testReadiness makes a pod ready by the file that its probe reads.
func (s *space) testReadiness(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	s.event(ctx, t, name, "Unhealthy", "Readiness probe failed")
	if err := isReady(s.get(ctx, t, name)); err == nil {
		t.Errorf("pod %s is ready before its probe succeeds", name)
	}
	s.mustKubectl(ctx, t, "exec", name, "--", "/bin/append", "/tmp/ready", "yes")
	if pod := s.ready(ctx, t, name); restarts(pod) != 0 {
		t.Errorf("pod %s started again, though its probes are good", name)
	}
}

// restarts counts those of all containers of a pod.
func restarts(pod *corev1.Pod) (count int32) {
	for _, status := range pod.Status.ContainerStatuses {
		count += status.RestartCount
	}
	return count
}
