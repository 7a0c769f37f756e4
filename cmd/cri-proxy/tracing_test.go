package main

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	traceParent = "00-" + traceID + "-b7ad6b7169203331-01"
)

// collector is an OTLP collector in this process.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans []*tracepb.Span
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// collect starts a collector and returns its endpoint.
func collect(t *testing.T) (c *collector, endpoint string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c = &collector{}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	done := async(func() error { return server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, listener.Addr().String()
}

// of returns the spans of the trace by name.
func (c *collector) of(trace string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			found[s.GetName()] = s
		}
	}
	return found
}

// TestTracing: the proxy's spans for a call, a hook and a pull are children of
// the caller's, and the runtime's become theirs.
func TestTracing(t *testing.T) {
	t.Parallel()
	c, endpoint := collect(t)
	p, alpha := hookedWith(t, "tracing.endpoint = \""+endpoint+"\"\n", "images.max_parallel_pulls = 1\n"+hook("pre_stop", command("true")))
	_, container := p.started("runc")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceParent)
	if _, err := p.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	p.stop() // What is left is sent.
	spans := c.of(traceID)
	for child, parent := range map[string]string{"route PullImage": "", "pull": "route PullImage", "route StopContainer": "", "hook PreStop": "route StopContainer"} {
		want := "b7ad6b7169203331"
		if parent != "" {
			want = hex.EncodeToString(spans[parent].GetSpanId())
		}
		if got := hex.EncodeToString(spans[child].GetParentSpanId()); got != want || got == "" {
			t.Errorf("the parent of %q is %q, want that of %q, %q", child, got, parent, want)
		}
	}
	for method, span := range map[string]string{"PullImage": "pull", "ExecSync": "hook PreStop", "StopContainer": "route StopContainer"} {
		calls := alpha.Calls(method)
		want := "00-" + traceID + "-" + hex.EncodeToString(spans[span].GetSpanId()) + "-01"
		if got := calls[len(calls)-1].Metadata.Get("traceparent"); !slices.Equal(got, []string{want}) {
			t.Errorf("%s arrived with %q, want %q's, %s", method, got, span, want)
		}
	}
	if attributes := spans["route StopContainer"].String(); !strings.Contains(attributes, "alpha") || !strings.Contains(attributes, "OK") {
		t.Errorf("the span of a call tells %s", attributes)
	}
}

// TestTraceContextOfHooks: with no collector the caller's trace context comes to
// the runtime as it is, also in what the hooks do for it; the rest of its
// metadata does not.
func TestTraceContextOfHooks(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("pre_stop", command("true"))+hook("post_start", command("true")))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceParent, "tracestate", "a=b", "secret", "x")
	_, container := p.container("runc")
	if _, err := p.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	p.delivery(journal.PostStart, journal.Delivered)
	if _, err := p.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"ExecSync", "StopContainer"} {
		calls := alpha.Calls(method)
		if len(calls) == 0 {
			t.Errorf("no %s", method)
		}
		for _, call := range calls {
			if !slices.Equal(call.Metadata.Get("traceparent"), []string{traceParent}) || !slices.Equal(call.Metadata.Get("tracestate"), []string{"a=b"}) || len(call.Metadata.Get("secret")) > 0 {
				t.Errorf("%s arrived with %v", method, call.Metadata)
			}
		}
	}
}
