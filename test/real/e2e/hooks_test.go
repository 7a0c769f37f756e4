package e2e_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testHooks: the node's hooks run in a pod's container, and its own PreStop runs
// though the pod is deleted by force.
func testHooks(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
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
		t.Run("forced/"+handler, func(t *testing.T) {
			own := &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
				Exec: &corev1.ExecAction{Command: []string{"/bin/append", "/hooks/log", "own"}},
			}}
			log := s.hooked(ctx, t, "forced-"+handler, handler, image, "app", own)
			s.mustKubectl(ctx, t, "delete", "pod", "forced-"+handler, "--force", "--grace-period=0")
			s.wait(ctx, t, func() error { return written(log, "own\n") })
		})
	}
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
