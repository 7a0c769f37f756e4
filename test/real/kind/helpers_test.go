package kind_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cri-proxy/cri-proxy/test/real/kind"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// The handlers of configs/kind/config.toml, which are its RuntimeClasses too.
const (
	runc   = "runc"   // the node's own containerd, and runc
	crun   = "crun"   // the node's own containerd, and crun
	second = "second" // the second containerd, and runc
)

func handlers() []string { return []string{runc, crun, second} }

// patience is for what takes seconds on a machine that has nothing else to do.
const patience = 3 * time.Minute

// appImage is test/real/images/app, by the name that docs/kind.md has. It is in no registry.
const appImage = "app:v1"

// cluster is what all parts share.
type cluster struct {
	*kind.Cluster

	root string
	page []rig.Block  // commands of docs/kind.md
	read map[int]bool // those that were executed
}

func (c *cluster) nodes() []string { return []string{c.Control(), c.Worker()} }

// kubectl returns what it prints, and fails the test where it fails.
func (c *cluster) kubectl(ctx context.Context, t *testing.T, arguments ...string) string {
	t.Helper()
	text, err := c.Kubectl(ctx, nil, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// on returns what a command in a node prints.
func (c *cluster) on(ctx context.Context, t *testing.T, node string, arguments ...string) string {
	t.Helper()
	text, err := c.On(ctx, node, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// apply is kubectl apply of a template's result.
func (c *cluster) apply(ctx context.Context, t *testing.T, text string, data any) {
	t.Helper()
	var object bytes.Buffer
	if err := template.Must(template.New("").Parse(text)).Execute(&object, data); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(ctx, &object, "apply", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
}

// get reads objects as kubectl prints them.
func (c *cluster) get(ctx context.Context, into any, arguments ...string) error {
	text, err := c.Kubectl(ctx, nil, append([]string{"get", "--output", "json"}, arguments...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

func (c *cluster) ready(ctx context.Context, t *testing.T, arguments ...string) {
	t.Helper()
	c.kubectl(ctx, t, append([]string{"wait", "--for=condition=Ready", "--timeout", patience.String()}, arguments...)...)
}

// wait polls until the check succeeds, for as long as patience lasts.
func wait(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	within(ctx, t, patience, check)
}

func within(ctx context.Context, t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := rig.Poll(ctx, check); err != nil {
		t.Fatal(err)
	}
}

// event waits for one of a pod whose message has the text.
func (c *cluster) event(ctx context.Context, t *testing.T, pod, reason, text string) {
	t.Helper()
	wait(ctx, t, func() error {
		var list corev1.EventList
		if err := c.get(ctx, &list, "events", "--field-selector", "involvedObject.name="+pod+",reason="+reason); err != nil {
			return err
		}
		for _, event := range list.Items {
			if strings.Contains(event.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("no event %s of pod %s has %q", reason, pod, text)
	})
}

// isReady says why a node is not.
func (c *cluster) isReady(ctx context.Context, node string) error {
	var object corev1.Node
	if err := c.get(ctx, &object, "node", node); err != nil {
		return err
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("node " + node + " is not ready")
}

func wantContains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q is not in:\n%s", part, text)
	}
}

// containers are the ids of all that run, and how often each was restarted.
func (c *cluster) containers(ctx context.Context, t *testing.T) map[string]int32 {
	t.Helper()
	var list corev1.PodList
	if err := c.get(ctx, &list, "pods", "--all-namespaces"); err != nil {
		t.Fatal(err)
	}
	ids := map[string]int32{}
	for _, pod := range list.Items {
		for _, status := range pod.Status.ContainerStatuses {
			ids[pod.Name+"/"+status.ContainerID] = status.RestartCount
		}
	}
	return ids
}
