package tracing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// sendTime bounds one message to the collector.
	sendTime = 5 * time.Second
	// closeTime is how long the end of the process waits for the last spans.
	closeTime = time.Second
)

// Options are what a Tracer needs.
type Options struct {
	Endpoint string // The collector's host:port, without TLS; "" makes no spans.
	Version  string // Of this program.
	Log      *logrus.Entry
}

// Tracer makes spans. It is made by [New]; nil makes none.
type Tracer struct {
	tracer trace.Tracer
	close  func()
}

// New returns a tracer, nil without an endpoint. It does not wait for the
// collector.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return nil, nil //nolint:nilnil // A nil tracer is one that makes no spans.
	}
	client, err := otlptracegrpc.New(ctx,
		otlptracegrpc.WithEndpoint(o.Endpoint), otlptracegrpc.WithInsecure(), otlptracegrpc.WithTimeout(sendTime))
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{SpanExporter: client, log: o.Log.WithField("endpoint", o.Endpoint)}), // Drops what its queue of 2048 does not hold.
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "cri-proxy"), attribute.String("service.version", o.Version),
		)),
	)
	end := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		err := provider.Shutdown(ctx)
		if err != nil { // It still sends; this cuts it off.
			err = errors.Join(err, client.Shutdown(ctx))
			o.Log.WithError(err).Debug("the last spans are lost")
		}
	}
	return &Tracer{tracer: provider.Tracer("github.com/cri-proxy/cri-proxy"), close: end}, nil
}

// Close sends what is left, for at most a second.
func (t *Tracer) Close() {
	if t != nil {
		t.close()
	}
}

// Start begins a span whose parent is the trace context in the outgoing metadata
// of ctx, and puts its own there. attributes are names and values by turns. End is
// to be called with what became of it.
func (t *Tracer) Start(ctx context.Context, name string, attributes ...string) (_ context.Context, end func(err error, attributes ...string)) {
	if t == nil {
		return ctx, func(error, ...string) {}
	}
	md, _ := metadata.FromOutgoingContext(ctx) // A copy.
	if md == nil {
		md = metadata.MD{}
	}
	w3c := propagation.TraceContext{}
	ctx, span := t.tracer.Start(w3c.Extract(ctx, carrier(md)), name, trace.WithAttributes(pairs(attributes)...))
	w3c.Inject(ctx, carrier(md))
	return metadata.NewOutgoingContext(ctx, md), func(err error, attributes ...string) {
		span.SetAttributes(pairs(attributes)...)
		if err != nil {
			span.SetStatus(otelcodes.Error, status.Code(err).String()) // Its text may quote what is private.
		}
		span.End()
	}
}

func pairs(attributes []string) []attribute.KeyValue {
	var all []attribute.KeyValue
	for i := 0; i+1 < len(attributes); i += 2 {
		all = append(all, attribute.String(attributes[i], attributes[i+1]))
	}
	return all
}

// carrier is gRPC metadata as a propagator wants it.
type carrier metadata.MD

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements [propagation.TextMapCarrier].
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys implements [propagation.TextMapCarrier].
func (c carrier) Keys() []string {
	var keys []string
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// exporter logs what cannot be sent, once until it can again, instead of telling
// OpenTelemetry's global handler.
type exporter struct {
	sdktrace.SpanExporter
	log    *logrus.Entry
	failed atomic.Bool
}

// ExportSpans implements [sdktrace.SpanExporter].
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if before := e.failed.Swap(err != nil); err != nil && !before {
		e.log.WithError(err).Warn("spans cannot be sent and are lost; this is said once until they can be sent again")
	} else if err == nil && before {
		e.log.Info("spans can be sent again")
	}
	return nil
}
