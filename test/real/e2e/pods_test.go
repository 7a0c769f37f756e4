package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testInitAndSidecar: an init container ends, then a sidecar starts and goes on,
// and the container sees what both have written.
func testInitAndSidecar(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	always := corev1.ContainerRestartPolicyAlways
	for _, handler := range handlers() {
		pod := s.pod(handler, handler, image)
		pod.Spec.Volumes = []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		mounts := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
		sidecarReady := execProbe("/bin/cat", "/shared/init")
		pod.Spec.InitContainers = []corev1.Container{
			{Name: "init", Image: image, Command: []string{"/bin/append", "/shared/init", "done"}, VolumeMounts: mounts},
			{Name: "sidecar", Image: image, Command: []string{"/bin/serve", "8081"}, RestartPolicy: &always, StartupProbe: sidecarReady, VolumeMounts: mounts},
		}
		pod.Spec.Containers[0].VolumeMounts = mounts
		s.create(ctx, t, pod)
	}
	for _, handler := range handlers() {
		pod := s.ready(ctx, t, handler)
		if got := s.mustKubectl(ctx, t, "exec", handler, "-c", "app", "--", "/bin/cat", "/shared/init"); got != "done\n" {
			t.Errorf("the init container wrote %q", got)
		}
		statuses := pod.Status.InitContainerStatuses
		if len(statuses) != 2 || statuses[0].State.Terminated == nil || statuses[1].State.Running == nil {
			t.Errorf("the init containers are %+v, want one ended and one running", statuses)
		}
		wantContains(t, s.mustKubectl(ctx, t, "logs", handler, "-c", "sidecar"), "listening on 8081")
	}
}

// testJob runs a Job of each handler: one that succeeds, and one whose container
// fails again and again.
func testJob(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	for _, handler := range handlers() {
		s.startJob(ctx, t, "good-"+handler, handler, image, "/bin/echo", "worked")
		s.startJob(ctx, t, "bad-"+handler, handler, image, "/bin/exit", "3")
	}
	for _, handler := range handlers() {
		s.mustKubectl(ctx, t, "wait", "--for=condition=complete", "job/good-"+handler, "--timeout", patience.String())
		wantContains(t, s.mustKubectl(ctx, t, "logs", "job/good-"+handler), "worked")
		s.mustKubectl(ctx, t, "wait", "--for=condition=failed", "job/bad-"+handler, "--timeout", patience.String())
	}
}

func (s *space) startJob(ctx context.Context, t *testing.T, name, handler, image string, command ...string) {
	t.Helper()
	one, pod := int32(1), s.pod(name, handler, image)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].Command = command
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       batchv1.JobSpec{BackoffLimit: &one, Template: corev1.PodTemplateSpec{Spec: pod.Spec}},
	}
	if _, err := s.Client.BatchV1().Jobs(s.name).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testNoClass runs a pod without a RuntimeClass, which is the default handler's.
func testNoClass(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	pod := s.pod("classless", runc, s.image(ctx, t, rig.Image{}))
	pod.Spec.RuntimeClassName = nil
	s.create(ctx, t, pod)
	_, id, _ := strings.Cut(containerID(s.ready(ctx, t, pod.Name)), "://")
	if _, err := s.crictl(t, runc).Run(ctx, "inspect", id); err != nil {
		t.Errorf("the container is not the default handler's: %v", err)
	}
}

// testResize gives a running container more memory. It must be the same
// container, and the runtime must say that it has the new limit.
func testResize(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	for _, handler := range handlers() {
		pod := s.pod(handler, handler, image)
		pod.Spec.Containers[0].Resources = memory("64Mi")
		s.create(ctx, t, pod)
	}
	for _, handler := range handlers() {
		before := s.ready(ctx, t, handler)
		s.mustKubectl(ctx, t, "patch", "pod", handler, "--subresource", "resize", "--patch",
			`{"spec":{"containers":[{"name":"app","resources":{"requests":{"memory":"96Mi"},"limits":{"memory":"96Mi"}}}]}}`)
		after := s.until(ctx, t, handler, func(pod *corev1.Pod) error {
			given := pod.Status.ContainerStatuses[0].Resources
			if given == nil || given.Limits.Memory().String() != "96Mi" {
				return fmt.Errorf("pod %s has not got its memory yet: %+v, %+v", pod.Name, given, pod.Status.Conditions)
			}
			return nil
		})
		if containerID(after) != containerID(before) || restarts(after) != 0 {
			t.Errorf("pod %s has another container after its resize", handler)
		}
	}
}

func memory(limit string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// containerID is that of a pod's first container.
func containerID(pod *corev1.Pod) string { return pod.Status.ContainerStatuses[0].ContainerID }

// testImageVolume mounts an image of its own into a container of each handler.
func testImageVolume(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	mounted := "example.test/" + s.name + "-mounted:v1"
	if _, err := s.Push(ctx, mounted, rig.Image{}); err != nil {
		t.Fatal(err)
	}
	for _, handler := range handlers() {
		pod := s.pod(handler, handler, image)
		source := corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: mounted}}
		pod.Spec.Volumes = []corev1.Volume{{Name: "mounted", VolumeSource: source}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mounted", MountPath: "/mounted", ReadOnly: true}}
		s.create(ctx, t, pod)
	}
	s.ready(ctx, t, handlers()...)
	for _, handler := range handlers() {
		wantContains(t, s.mustKubectl(ctx, t, "exec", handler, "--", "/bin/ls", "/mounted/bin"), "serve\n")
	}
}
