// Package tracing makes the proxy's own spans and sends them to an OTLP/gRPC
// collector.
//
// Guaranteed: a nil [Tracer] makes none and costs a comparison. Nothing waits for
// the collector: spans wait in a queue of fixed size, and those that do not fit
// are lost. A caller's W3C trace context is the parent, and what is called for it
// gets the span as its own. Spans hold no request, no answer and no error's text.
//
// Not guaranteed: that a span arrives.
package tracing
