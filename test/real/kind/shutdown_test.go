package kind_test

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// last has a PreStop that takes a moment, by cri-proxy.
const last = `
apiVersion: v1
kind: Pod
metadata:
  name: last-{{.}}
  annotations:
    cri-proxy.io/hooks: |
      {"app": {"preStop": [{"sleep": {"seconds": 1}}, {"exec": {"command": ["/bin/append", "/hooks/last", "{{.}}"]}}]}}
spec:
  runtimeClassName: {{.}}
  nodeName: NODE
  terminationGracePeriodSeconds: 15
  volumes: [{name: hooks, hostPath: {path: /var/hooks-{{.}}, type: DirectoryOrCreate}}]
  containers:
    - {name: app, image: "` + appImage + `", imagePullPolicy: Never, volumeMounts: [{name: hooks, mountPath: /hooks}]}
`

// testShutdown shuts the worker down in order, as logind announces it. PreStop
// hooks of every handler run before the node is off, and all comes back with it.
func testShutdown(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for _, handler := range handlers() {
		c.apply(ctx, t, strings.ReplaceAll(last, "NODE", c.Worker()), handler)
		c.ready(ctx, t, "pod/last-"+handler)
	}
	before := c.containers(ctx, t)
	began := c.started(ctx, t)
	c.on(ctx, t, c.Worker(), "systemctl", "poweroff")
	wait(ctx, t, func() error {
		// Docker starts it again by itself where it ended with an error.
		state, err := c.Run(ctx, nil, "inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", c.Worker())
		if err == nil && strings.TrimSpace(state) == "running "+began {
			err = errors.New("the node is not off")
		}
		return err
	})
	if _, err := c.Run(ctx, nil, "start", c.Worker()); err != nil {
		t.Fatal(err)
	}
	for _, handler := range handlers() {
		if got := c.on(ctx, t, c.Worker(), "cat", "/var/hooks-"+handler+"/last"); got != handler+"\n" {
			t.Errorf("the PreStop of %s has written %q, want one line", handler, got)
		}
	}
	c.backAgain(ctx, t, before)
}

// started is when the worker's container was.
func (c *cluster) started(ctx context.Context, t *testing.T) string {
	t.Helper()
	text, err := c.Run(ctx, nil, "inspect", "--format", "{{.State.StartedAt}}", c.Worker())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}
