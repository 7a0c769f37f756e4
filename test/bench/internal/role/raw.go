package role

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/siderolabs/grpc-proxy/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// maxMessage is the kubelet's and containerd's limit of a message.
const maxMessage = 16 << 20

// Raw forwards every call undecoded with github.com/siderolabs/grpc-proxy until
// ctx ends: what a good transparent gRPC proxy costs.
func Raw(ctx context.Context, listen, upstream string) error {
	conn, err := grpc.NewClient("unix://"+upstream,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(proxy.Codec()),
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
		),
	)
	if err != nil {
		return fmt.Errorf("dial %s: %w", upstream, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for the raw forwarder: %w", err), conn.Close())
	}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(proxy.Codec()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.UnknownServiceHandler(proxy.TransparentHandler(director(conn))),
	)
	defer context.AfterFunc(ctx, server.Stop)()
	return errors.Join(server.Serve(listener), conn.Close())
}

// director sends every call to conn with the metadata that it came with.
func director(conn *grpc.ClientConn) proxy.StreamDirector {
	backend := &proxy.SingleBackend{
		GetConn: func(ctx context.Context) (context.Context, *grpc.ClientConn, error) {
			if md, ok := metadata.FromIncomingContext(ctx); ok {
				ctx = metadata.NewOutgoingContext(ctx, md)
			}
			return ctx, conn, nil
		},
	}
	backends := []proxy.Backend{backend}
	return func(context.Context, string) (proxy.Mode, []proxy.Backend, error) {
		return proxy.One2One, backends, nil
	}
}
