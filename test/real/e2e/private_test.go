package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testPrivateImages pulls from two registries, one for each handler, with the
// secret of the pod; with a wrong secret it waits, and starts when the secret is
// corrected.
func testPrivateImages(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	for _, handler := range handlers() {
		private := s.private(ctx, t, handler)
		image := private.Host + "/team/app:v1"
		if _, err := private.Push(ctx, image, rig.Image{}); err != nil {
			t.Fatal(err)
		}
		s.pullSecret(ctx, t, "right-"+handler, private.Host, private.User, private.Password)
		s.pullSecret(ctx, t, "wrong-"+handler, private.Host, private.User, s.Secret("stranger-"+handler))
		s.create(ctx, t, s.secretive("wrong-"+handler, handler, image))
	}
	for _, handler := range handlers() {
		s.until(ctx, t, "wrong-"+handler, refused)
		image := s.get(ctx, t, "wrong-"+handler).Spec.Containers[0].Image
		s.create(ctx, t, s.secretive("right-"+handler, handler, image))
	}
	for _, handler := range handlers() {
		s.ready(ctx, t, "right-"+handler)
		s.wantHandler(ctx, t, "right-"+handler, handler)
		s.correct(ctx, t, "wrong-"+handler, "right-"+handler)
	}
	for _, handler := range handlers() {
		s.ready(ctx, t, "wrong-"+handler)
		s.wantHandler(ctx, t, "wrong-"+handler, handler)
	}
}

// private starts a registry that both containerds find under a name of its own.
func (s *space) private(ctx context.Context, t *testing.T, handler string) *rig.Private {
	t.Helper()
	private, err := s.Private(ctx, strings.ReplaceAll(s.name, "/", "-")+"-"+handler)
	if err != nil {
		t.Fatal(err)
	}
	for _, containerd := range []*rig.Containerd{s.alpha, s.beta} {
		if err := containerd.Reach(private.Host, private.Address); err != nil {
			t.Fatal(err)
		}
	}
	return private
}

func (s *space) pullSecret(ctx context.Context, t *testing.T, name, host, user, password string) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: dockerConfig(t, host, user, password)},
	}
	if _, err := s.Client.CoreV1().Secrets(s.name).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func dockerConfig(t *testing.T, host, user, password string) []byte {
	t.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": user, "password": password}}})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// secretive is a pod that pulls with the secret of its own name.
func (s *space) secretive(name, handler, image string) *corev1.Pod {
	pod := s.pod(name, handler, image)
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: name}}
	pod.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways
	return pod
}

// refused says that a pod does not wait for its image in the way that people know.
func refused(pod *corev1.Pod) error {
	if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
		return fmt.Errorf("pod %s does not wait yet", pod.Name)
	}
	if reason := pod.Status.ContainerStatuses[0].State.Waiting.Reason; reason != "ImagePullBackOff" {
		return fmt.Errorf("pod %s waits for %s, not for ImagePullBackOff", pod.Name, reason)
	}
	return nil
}

// correct gives one secret the content of another.
func (s *space) correct(ctx context.Context, t *testing.T, wrong, right string) {
	t.Helper()
	secrets := s.Client.CoreV1().Secrets(s.name)
	good, err := secrets.Get(ctx, right, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := secrets.Get(ctx, wrong, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bad.Data = good.Data
	if _, err := secrets.Update(ctx, bad, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
