package tracing

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector is an OTLP collector in this process.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer

	endpoint string
	hold     chan struct{} // It answers when that is closed; nil is at once.
	spans    chan *tracepb.Span
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(ctx context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	if c.hold != nil {
		select {
		case <-c.hold:
		case <-ctx.Done():
		}
	}
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans <- span
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func collect(t *testing.T, hold chan struct{}) *collector {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{endpoint: listener.Addr().String(), hold: hold, spans: make(chan *tracepb.Span, 100_000)}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func tracer(t *testing.T, endpoint string) (*Tracer, *logrustest.Hook) {
	t.Helper()
	logger, hook := logrustest.NewNullLogger()
	tr, err := New(t.Context(), Options{Endpoint: endpoint, Version: "v1", Log: logrus.NewEntry(logger)})
	if err != nil {
		t.Fatal(err)
	}
	return tr, hook
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestSpans: a span is the child of the caller's, and the parent of what follows;
// the text of an error is not in it.
func TestSpans(t *testing.T) {
	t.Parallel()
	c := collect(t, nil)
	tr, _ := tracer(t, c.endpoint)
	incoming := metadata.Pairs("traceparent", parent, "tracestate", "a=b", "other", "stays")
	ctx := metadata.NewOutgoingContext(t.Context(), incoming)
	ctx, endOuter := tr.Start(ctx, "outer", "key", "value")
	inside, endInner := tr.Start(ctx, "inner")
	endInner(status.Error(codes.NotFound, "the password is x"))
	endOuter(nil, "more", "1")
	tr.Close()
	inner, outer := <-c.spans, <-c.spans
	if outer.GetName() != "outer" || hex(outer.GetTraceId()) != "0af7651916cd43dd8448eb211c80319c" || hex(outer.GetParentSpanId()) != "b7ad6b7169203331" || len(outer.GetAttributes()) != 2 {
		t.Errorf("outer: %v", outer)
	}
	if inner.GetName() != "inner" || !slices.Equal(inner.GetTraceId(), outer.GetTraceId()) || !slices.Equal(inner.GetParentSpanId(), outer.GetSpanId()) {
		t.Errorf("inner: %v", inner)
	}
	if inner.GetStatus().GetMessage() != "NotFound" || strings.Contains(inner.String(), "password") {
		t.Errorf("inner's status: %v", inner.GetStatus())
	}
	md, _ := metadata.FromOutgoingContext(inside)
	want := "00-" + hex(inner.GetTraceId()) + "-" + hex(inner.GetSpanId()) + "-01"
	if !slices.Equal(md.Get("traceparent"), []string{want}) || !slices.Equal(md.Get("tracestate"), []string{"a=b"}) || !slices.Equal(md.Get("other"), []string{"stays"}) {
		t.Errorf("passed on: %v, want traceparent %s", md, want)
	}
	if !slices.Equal(incoming.Get("traceparent"), []string{parent}) {
		t.Error("the caller's own metadata was changed")
	}
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

// TestOff: without an endpoint there is nothing, and what comes is passed on as
// it came.
func TestOff(t *testing.T) {
	t.Parallel()
	tr, _ := tracer(t, "")
	if tr != nil {
		t.Fatal("a tracer without an endpoint")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "as it came")
	if same, end := tr.Start(ctx, "x"); same != ctx {
		t.Error("another context")
	} else {
		end(nil)
	}
	tr.Close()
}

// TestCollectorHangs: spans never wait for the collector, more of them than the
// queue holds neither, and nor does the end.
func TestCollectorHangs(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	c := collect(t, hold)
	defer close(hold)
	tr, _ := tracer(t, c.endpoint)
	began := time.Now()
	for range 10_000 {
		_, end := tr.Start(t.Context(), "x")
		end(nil)
	}
	if took := time.Since(began); took > 5*time.Second { // A time-out of ours alone.
		t.Errorf("10,000 spans took %s", took)
	}
	began = time.Now()
	tr.Close()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// TestNobodyThere: that spans are lost is said once.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	logger, hook := logrustest.NewNullLogger()
	e := &exporter{SpanExporter: nobody{}, log: logrus.NewEntry(logger)}
	for range 3 {
		if err := e.ExportSpans(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if got := len(hook.AllEntries()); got != 1 {
		t.Errorf("said %d times", got)
	}
}

type nobody struct{}

// ExportSpans implements sdktrace.SpanExporter.
func (nobody) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return errors.New("nobody is there")
}

// Shutdown implements sdktrace.SpanExporter.
func (nobody) Shutdown(context.Context) error { return nil }
