package e2e_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testHooks: the node's hooks run in a pod's container, and its own PreStop runs
// once, whether the kubelet does it, as for a pod that is deleted by force, or does
// not, as for a container that somebody else stops.
func testHooks(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	t.Run("of-the-handler", func(t *testing.T) {
		log := s.hooked(ctx, t, "node", runc, image, "hooked", nil)
		s.wait(ctx, t, func() error { return written(log, "registered\n") })
		s.mustKubectl(ctx, t, "delete", "pod", "node", "--grace-period=20")
		if err := written(log, "registered\ndrained\n"); err != nil {
			t.Error(err)
		}
	})
	for _, handler := range handlers() {
		t.Run("ensured/"+handler, func(t *testing.T) { s.testEnsured(ctx, t, handler, image) })
		t.Run("forced/"+handler, func(t *testing.T) {
			log := s.hooked(ctx, t, "forced-"+handler, handler, image, "app", preStop())
			s.mustKubectl(ctx, t, "delete", "pod", "forced-"+handler, "--force", "--grace-period=0")
			s.stopped(ctx, t, "forced-"+handler, handler)
			if err := written(log, "own\n"); err != nil {
				t.Error(err)
			}
		})
	}
}

// testEnsured stops a container past the kubelet, which therefore runs no PreStop.
func (s *space) testEnsured(ctx context.Context, t *testing.T, handler, image string) {
	t.Helper()
	name := "ensured-" + handler
	log := s.hooked(ctx, t, name, handler, image, "app", preStop())
	crictl, err := s.Crictl(s.proxy.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(containerID(s.get(ctx, t, name)), "://")
	if _, err := crictl.Run(ctx, "stop", "--timeout", "20", id); err != nil {
		t.Fatal(err)
	}
	if err := written(log, "own\n"); err != nil {
		t.Error(err)
	}
}

// preStop is one of a pod's own.
func preStop() *corev1.Lifecycle {
	return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/append", "/hooks/log", "own"}},
	}}
}

// stopped waits until no container of a pod runs, whatever the API server has.
func (s *space) stopped(ctx context.Context, t *testing.T, pod, handler string) {
	t.Helper()
	crictl := s.crictl(t, handler)
	label := []string{"--label", "io.kubernetes.pod.namespace=" + s.name, "--label", "io.kubernetes.pod.name=" + pod}
	s.wait(ctx, t, func() error {
		running, err := crictl.Run(ctx, append([]string{"ps", "--quiet", "--state", "running"}, label...)...)
		if err == nil && running != "" {
			err = errors.New("there still runs " + running)
		}
		return err
	})
}

// hooked runs a pod that has a folder of the node as /hooks, and returns the
// file there that the hooks write.
func (s *space) hooked(ctx context.Context, t *testing.T, name, handler, image, container string, own *corev1.Lifecycle) (log string) {
	t.Helper()
	folder, long := filepath.Join(s.Dir, name), int64(20)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	pod := s.pod(name, handler, image)
	source := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "hooks", VolumeSource: source}}
	pod.Spec.TerminationGracePeriodSeconds = &long
	app := &pod.Spec.Containers[0]
	app.Name, app.Lifecycle, app.VolumeMounts = container, own, []corev1.VolumeMount{{Name: "hooks", MountPath: "/hooks"}}
	s.create(ctx, t, pod)
	s.ready(ctx, t, name)
	return filepath.Join(folder, "log")
}

// written compares what hooks have written.
func written(log, want string) error {
	got, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(got) != want {
		return errors.New("the hooks have written " + string(got) + ", want " + want)
	}
	return nil
}
