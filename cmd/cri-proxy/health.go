package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// healthService is gRPC's standard health check, on the CRI socket.
const healthService = "grpc.health.v1.Health"

// aliveTime is how long the proxy may take to answer itself.
const aliveTime = 5 * time.Second

// answerHealth says SERVING: whoever gets the answer has shown it.
func answerHealth(_ context.Context, call *rawcri.Call) error {
	if call.Method.Name != "Check" {
		return status.Errorf(codes.Unimplemented, "%s: only Check is served", call.Method.Name)
	}
	return call.Reply(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
}

// alive asks the proxy's own socket, all the way that a kubelet's call takes
// but for the backend: those have their own health.
func (d *daemon) alive(ctx context.Context) (err error) {
	path, err := configs.SocketPath(d.cfg.Server.Listen)
	if err != nil {
		return err
	}
	conn, err := rawcri.Dial(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return fmt.Errorf("the proxy's own socket %s: %w", path, err)
	}
	return nil
}

// ready is nil when a kubelet can start on this socket: it serves, and the
// default backend answers.
func (d *daemon) ready(ctx context.Context) error {
	if err := d.alive(ctx); err != nil {
		return err
	}
	if b := d.backends().Default(); !b.Up() {
		return errors.New(status.Convert(b.Away()).Message()) // Nobody calls by gRPC here.
	}
	return nil
}
