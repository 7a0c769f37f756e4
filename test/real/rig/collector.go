package rig

import (
	"context"
	"encoding/hex"
	"net"
	"sync"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector is an OTLP/gRPC collector in this process. It keeps all spans.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer

	Address string // host:port

	server *grpc.Server
	served chan error

	mu    sync.Mutex
	spans []*tracepb.Span
}

// NewCollector starts a collector, to be closed.
func NewCollector(ctx context.Context) (*Collector, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Collector{Address: listener.Addr().String(), server: grpc.NewServer(), served: make(chan error, 1)}
	collectorpb.RegisterTraceServiceServer(c.server, c)
	go func() { c.served <- c.server.Serve(listener) }()
	return c, nil
}

// Close ends it.
func (c *Collector) Close() error {
	c.server.Stop()
	return <-c.served
}

// Export implements collectorpb.TraceServiceServer.
func (c *Collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// Find returns the first span of a trace with that name and parent, in
// hexadecimal digits; nil if there is none.
func (c *Collector) Find(trace, name, parent string) *tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name && hex.EncodeToString(s.GetTraceId()) == trace && hex.EncodeToString(s.GetParentSpanId()) == parent {
			return s
		}
	}
	return nil
}

// Names returns the names of a trace's spans, for the reader of a failure.
func (c *Collector) Names(trace string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			names = append(names, hex.EncodeToString(s.GetParentSpanId())+" → "+hex.EncodeToString(s.GetSpanId())+" "+s.GetName())
		}
	}
	return names
}
