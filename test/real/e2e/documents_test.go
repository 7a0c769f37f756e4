package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testDocuments: the keys that documents write into the kubelet's configuration
// file are those by which this kubelet has its runtime.
func testDocuments(ctx context.Context, t *testing.T, c *cluster) {
	var answer struct {
		Configuration map[string]any `json:"kubeletconfig"`
	}
	body, err := c.Cluster.Kubelet.Get(ctx, "/configz")
	blocks, blocksErr := rig.Blocks(c.Root)
	if err := errors.Join(err, json.Unmarshal(body, &answer), blocksErr); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, b := range blocks {
		if b.Test != "kubelet" {
			continue
		}
		var written map[string]string
		if err := yaml.Unmarshal([]byte(b.Text), &written); err != nil {
			t.Errorf("%s:%d: %v", b.File, b.Line, err)
		}
		for key := range written {
			found++
			if answer.Configuration[key] != c.proxy.Endpoint() {
				t.Errorf("%s:%d: the kubelet has %v as %s, want %s", b.File, b.Line, answer.Configuration[key], key, c.proxy.Endpoint())
			}
		}
	}
	if found == 0 {
		t.Error("no document writes into the kubelet's configuration file")
	}
}
