package kind_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// hooked has hooks of its own, which write into a folder of its node, and a
// PreStop that fails. What a pod may not do the handler would have to allow.
const hooked = `
apiVersion: v1
kind: Pod
metadata:
  name: hooked-{{.}}
  annotations:
    cri-proxy.io/hooks: |
      {"app": {"postStart": [{"exec": {"command": ["/bin/append", "/hooks/log", "started"]}}],
               "preStop": [{"exec": {"command": ["/bin/append", "/hooks/log", "stopping"]}}, {"exec": {"command": ["/bin/exit", "3"]}}]}}
spec:
  runtimeClassName: {{.}}
  terminationGracePeriodSeconds: 20
  volumes: [{name: hooks, hostPath: {path: /var/hooks-{{.}}, type: DirectoryOrCreate}}]
  containers:
    - {name: app, image: "` + appImage + `", imagePullPolicy: Never, volumeMounts: [{name: hooks, mountPath: /hooks}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: refused-{{.}}
  annotations:
    cri-proxy.io/hooks: |
      {"app": {"postStart": [{"exec": {"command": ["/bin/exit", "4"]}}]}}
spec:
  runtimeClassName: {{.}}
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "` + appImage + `", imagePullPolicy: Never}]
`

// testHooks: PostStart and PreStop run on each handler, and those that fail are
// Events, which cri-proxy writes as the node.
func testHooks(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for _, handler := range handlers() {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			c.apply(ctx, t, hooked, handler)
			c.ready(ctx, t, "pod/hooked-"+handler)
			c.wantHooks(ctx, t, handler, "started\n")
			c.event(ctx, t, "refused-"+handler, "FailedPostStartHook", "exit code 4")
			c.kubectl(ctx, t, "delete", "pod", "hooked-"+handler, "refused-"+handler)
			c.wantHooks(ctx, t, handler, "started\nstopping\n")
			c.event(ctx, t, "hooked-"+handler, "FailedPreStopHook", "exit code 3")
		})
	}
}

// wantHooks waits until the hooks have written so much.
func (c *cluster) wantHooks(ctx context.Context, t *testing.T, handler, want string) {
	t.Helper()
	wait(ctx, t, func() error {
		got, err := c.On(ctx, c.Worker(), "cat", "/var/hooks-"+handler+"/log")
		if err == nil && got != want {
			err = fmt.Errorf("the hooks have written %q, want %q", strings.TrimSpace(got), want)
		}
		return err
	})
}
