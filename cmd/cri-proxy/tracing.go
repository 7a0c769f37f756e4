package main

import (
	"context"

	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/tracing"
)

// trace begins to make spans, if there is somebody to send them to.
func (d *daemon) trace(ctx context.Context) (err error) {
	d.tracer, err = tracing.New(ctx, tracing.Options{
		Endpoint: d.cfg.Tracing.Endpoint, Version: readVersion().Version, Log: component(d.log, "tracing"),
	})
	return err
}

// traceCall is the server's [rawcri.ServerOptions].Trace.
func (d *daemon) traceCall(ctx context.Context, call *rawcri.Call) (context.Context, func(error)) {
	if call.Method.Service == healthService {
		return ctx, func(error) {} // It is the proxy that asks itself.
	}
	name := "other" // As in metrics: names that callers make up are nobody's.
	if call.Method.Known {
		name = call.Method.Name
	}
	ctx, end := d.tracer.Start(ctx, "route "+name, "rpc.system", "grpc", "rpc.service", call.Method.Service, "rpc.method", name)
	return ctx, func(err error) { end(err, "backend", call.Backend, "rpc.grpc.status_code", status.Code(err).String()) }
}
