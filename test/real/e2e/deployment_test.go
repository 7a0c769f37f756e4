package e2e_test

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testDeployment rolls a Deployment of each handler out, onwards and back.
func testDeployment(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	first := s.image(ctx, t, rig.Image{Env: []string{"RELEASE=first"}})
	next := "example.test/" + s.name + ":v2"
	if _, err := s.Push(ctx, next, rig.Image{Env: []string{"RELEASE=next"}}); err != nil {
		t.Fatal(err)
	}
	for _, handler := range handlers() {
		s.deploy(ctx, t, handler, first)
	}
	for _, handler := range handlers() {
		s.rolledOut(ctx, t, handler, "RELEASE=first")
		s.mustKubectl(ctx, t, "set", "image", "deployment/"+handler, "app="+next)
	}
	for _, handler := range handlers() {
		s.rolledOut(ctx, t, handler, "RELEASE=next")
		s.mustKubectl(ctx, t, "rollout", "undo", "deployment/"+handler)
	}
	for _, handler := range handlers() {
		s.rolledOut(ctx, t, handler, "RELEASE=first")
	}
}

// deploy makes a Deployment of two pods that has the handler's name.
func (s *space) deploy(ctx context.Context, t *testing.T, handler, image string) {
	t.Helper()
	two, pod := int32(2), s.pod(handler, handler, image)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: handler},
		Spec: appsv1.DeploymentSpec{
			Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}
	if _, err := s.Client.AppsV1().Deployments(s.name).Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// rolledOut waits for a Deployment's pods, and for them alone to be there.
func (s *space) rolledOut(ctx context.Context, t *testing.T, handler, release string) {
	t.Helper()
	s.mustKubectl(ctx, t, "rollout", "status", "deployment/"+handler, "--timeout", patience.String())
	s.wantHandler(ctx, t, "deployment/"+handler, handler)
	wantContains(t, s.mustKubectl(ctx, t, "exec", "deployment/"+handler, "--", "/bin/env"), release)
}
