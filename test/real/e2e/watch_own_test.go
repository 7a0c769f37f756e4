package e2e_test

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestWatch: what must not be there twice is told from what may.
func TestWatch(t *testing.T) {
	t.Parallel()
	made := func(id, name string, attempt uint32, state runtimeapi.ContainerState) *runtimeapi.Container {
		return &runtimeapi.Container{
			Id: id, State: state, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
			Labels: map[string]string{"io.kubernetes.pod.namespace": "here", "io.kubernetes.pod.name": "pod", "io.kubernetes.pod.uid": "uid"},
		}
	}
	const running, exited = runtimeapi.ContainerState_CONTAINER_RUNNING, runtimeapi.ContainerState_CONTAINER_EXITED
	for name, test := range map[string]struct {
		containers []*runtimeapi.Container
		doubles    int
	}{
		"one seen twice":           {[]*runtimeapi.Container{made("1", "app", 0, running), made("1", "app", 0, running)}, 0},
		"a second attempt":         {[]*runtimeapi.Container{made("1", "app", 0, exited), made("2", "app", 1, running)}, 0},
		"two of a pod":             {[]*runtimeapi.Container{made("1", "app", 0, running), made("2", "side", 0, running)}, 0},
		"one attempt made twice":   {[]*runtimeapi.Container{made("1", "app", 0, exited), made("2", "app", 0, running)}, 1},
		"two attempts run at once": {[]*runtimeapi.Container{made("1", "app", 0, running), made("2", "app", 1, running)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &watch{namespace: "here", made: map[string]string{}, double: map[string]struct{}{}}
			found, seen := map[string]string{}, map[string]string{}
			for _, container := range test.containers {
				w.container(container, found, seen)
			}
			if len(w.double) != test.doubles {
				t.Errorf("found %v, want %d", w.double, test.doubles)
			}
			if err := w.onlyOf(nil); err == nil {
				t.Error("nothing was listed, and that is enough")
			}
		})
	}
}
