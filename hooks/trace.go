package hooks

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// traceHeaders are what a caller's trace is told by: W3C's, and gRPC's older one.
func traceHeaders() []string {
	return []string{"traceparent", "tracestate", "baggage", "grpc-trace-bin"}
}

// traced returns ctx with the trace context that a caller's calls have. The rest
// of its metadata was for the one call that it made.
func traced(ctx, caller context.Context) context.Context {
	from, ok := metadata.FromOutgoingContext(caller)
	if !ok {
		return ctx
	}
	var pairs []string
	for _, key := range traceHeaders() {
		for _, value := range from.Get(key) {
			pairs = append(pairs, key, value)
		}
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// span begins the span of a delivery.
func (e *Engine) span(ctx context.Context, r journal.Record) (context.Context, func(error, ...string)) {
	return e.Span(ctx, "hook "+string(r.Event),
		"hook.name", r.Hook.Name, "hook.kind", r.Hook.Kind(), "handler", r.Handler, "container.id", r.Container, "delivery.id", r.ID)
}
