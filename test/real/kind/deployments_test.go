package kind_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// deployment has a pod on each node, the control plane included. Its pods find
// the Service of another namespace by what cri-proxy adds.
const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-{{.}}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web-{{.}}}}
  template:
    metadata:
      labels: {app: web-{{.}}}
      annotations: {cri-proxy.io/service-env: enabled}
    spec:
      runtimeClassName: {{.}}
      terminationGracePeriodSeconds: 1
      tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web-{{.}}}}}
      containers:
        - {name: app, image: "` + appImage + `", imagePullPolicy: Never, readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}}
`

// states are where a runtime keeps what it knows of a container: runc and crun
// have files of their own, and each containerd gives them a folder of its own.
func states() map[string]string {
	return map[string]string{
		runc:   "/run/containerd/runc/k8s.io/%s/state.json",
		crun:   "/run/containerd/crun/k8s.io/%s/status",
		second: "/run/containerd-second/runc/k8s.io/%s/state.json",
	}
}

// testDeployments: each class has a pod on each node, on the runtime and the
// containerd of its handler and on no other, and can be used like any other.
func testDeployments(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	c.kubectl(ctx, t, "create", "namespace", "shared")
	c.kubectl(ctx, t, "create", "service", "clusterip", "ledger", "--tcp", "5432", "--namespace", "shared")
	for _, handler := range handlers() {
		c.apply(ctx, t, deployment, handler)
	}
	for _, handler := range handlers() {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			c.kubectl(ctx, t, "rollout", "status", "deployment/web-"+handler, "--timeout", patience.String())
			pods, err := c.web(ctx, handler)
			if err != nil {
				t.Fatal(err)
			}
			if len(pods) != 2 || pods[0].Spec.NodeName == pods[1].Spec.NodeName {
				t.Fatalf("%d pods, want one on each node", len(pods))
			}
			for i := range pods {
				c.wantRuntime(ctx, t, &pods[i], handler)
				c.wantUsable(ctx, t, &pods[i])
				c.wantReached(ctx, t, &pods[i], &pods[1-i])
			}
		})
	}
}

// wantRuntime looks for the container's state under every runtime of its node.
func (c *cluster) wantRuntime(ctx context.Context, t *testing.T, pod *corev1.Pod, handler string) {
	t.Helper()
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	for other, state := range states() {
		_, err := c.On(ctx, pod.Spec.NodeName, "test", "-f", fmt.Sprintf(state, id))
		if found := err == nil; found != (other == handler) {
			t.Errorf("pod %s of %s is known to the runtime of %s: %t", pod.Name, handler, other, found)
		}
	}
}

// wantUsable: exec, logs, port-forward, and the variables of Services.
func (c *cluster) wantUsable(ctx context.Context, t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if got := strings.TrimSpace(c.kubectl(ctx, t, "exec", pod.Name, "--", "/bin/hostname")); got != pod.Name {
		t.Errorf("the hostname in pod %s is %q", pod.Name, got)
	}
	wantContains(t, c.kubectl(ctx, t, "logs", pod.Name), "listening on 8080")
	variables := c.kubectl(ctx, t, "exec", pod.Name, "--", "/bin/env")
	wantContains(t, variables, "LEDGER_SERVICE_PORT=5432\n")        // of cri-proxy
	wantContains(t, variables, "KUBERNETES_SERVICE_HOST=10.96.0.1") // of the kubelet
	answer, err := c.Forward(ctx, pod.Name, 8080)
	if err != nil {
		t.Fatal(err)
	}
	wantContains(t, answer, "hello from "+pod.Name)
}

// wantReached: one pod gets an answer of the other, which is on another node.
func (c *cluster) wantReached(ctx context.Context, t *testing.T, from, to *corev1.Pod) {
	t.Helper()
	sandbox := strings.TrimSpace(c.on(ctx, t, from.Spec.NodeName, "crictl", "pods", "--quiet", "--no-trunc", "--name", from.Name))
	pid := strings.TrimSpace(c.on(ctx, t, from.Spec.NodeName, "crictl", "inspectp", "--output", "go-template", "--template", "{{.info.pid}}", sandbox))
	answer := c.on(ctx, t, from.Spec.NodeName, "nsenter", "--target", pid, "--net", "curl", "--silent", "--max-time", "10", "http://"+to.Status.PodIP+":8080")
	wantContains(t, answer, "hello from "+to.Name)
}

// noRestarts: the pods run as they did before.
func (c *cluster) noRestarts(ctx context.Context, t *testing.T, before map[string]int32) {
	t.Helper()
	now := c.containers(ctx, t)
	for id, count := range before {
		if got, ok := now[id]; !ok || got != count {
			t.Errorf("container %s was restarted %d times and now %d (still there: %t)", id, count, got, ok)
		}
	}
	if len(before) == 0 {
		t.Error(errors.New("there were no containers to compare with"))
	}
}
