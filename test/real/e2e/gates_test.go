package e2e_test

import (
	"context"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testHandlerInImages: the kubelet has the gate. What it then sends shows in
// nothing that the kubelet or the proxy count.
func testHandlerInImages(ctx context.Context, t *testing.T, c *cluster) {
	metrics, err := c.Cluster.Kubelet.Get(ctx, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	wantContains(t, string(metrics), `kubernetes_feature_enabled{name="RuntimeClassInImageCriApi",stage="ALPHA"} 1`)
}

// testEventsAndStreams: the kubelet has events from the proxy, and asks it for
// streamed lists.
func testEventsAndStreams(ctx context.Context, t *testing.T, c *cluster) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := rig.Poll(ctx, func() error {
		metrics, err := c.proxy.AdminGet(ctx, "/metrics")
		if err != nil {
			return err
		}
		return contains(string(metrics),
			`cri_proxy_requests_in_flight{method="GetContainerEvents"} 1`,
			`cri_proxy_requests_total{backend="",code="OK",method="StreamContainers"}`,
			`cri_proxy_requests_total{backend="",code="OK",method="StreamPodSandboxes"}`)
	})
	if err != nil {
		t.Fatal(err)
	}
}
