package kind_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// testNodes: both nodes are ready on cri-proxy, and say which handlers it has.
func testNodes(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	const endpoint = "containerRuntimeEndpoint: unix:///run/cri-proxy/cri-proxy.sock"
	for _, node := range c.nodes() {
		if err := c.isReady(ctx, node); err != nil {
			t.Error(err)
		}
		for _, file := range []string{"config.yaml", "instance-config.yaml"} {
			content := c.on(ctx, t, node, "cat", "/var/lib/kubelet/"+file)
			wantContains(t, strings.ReplaceAll(content, `"`, ""), endpoint+"\n")
		}
		wait(ctx, t, func() error { return c.knowsServices(ctx, node) })
		var object corev1.Node
		if err := c.get(ctx, &object, "node", node); err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, handler := range object.Status.RuntimeHandlers {
			names = append(names, handler.Name)
		}
		if want := []string{"", crun, runc, second}; !slices.Equal(names, want) {
			t.Errorf("node %s has the handlers %q, want %q", node, names, want)
		}
	}
}

// knowsServices says why a node's proxy does not, which had no kubeconfig at first.
func (c *cluster) knowsServices(ctx context.Context, node string) error {
	text, err := c.On(ctx, node, "cri-proxy", "status", "-o", "json")
	if err != nil {
		return err
	}
	var status struct {
		ServiceCache struct {
			Synced bool   `json:"synced"`
			Error  string `json:"error"`
		} `json:"serviceCache"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return err
	}
	if !status.ServiceCache.Synced {
		return errors.New("the Services are not known yet: " + status.ServiceCache.Error)
	}
	return nil
}
