package main

import (
	"context"
	"flag"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/role"
)

// roles are the other processes that this binary plays, by their first argument.
func roles() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"fake":  playFake,
		"relay": between("relay", role.Relay),
		"raw":   between("raw", role.Raw),
	}
}

func playFake(ctx context.Context, args []string) error {
	var o role.FakeOptions
	flags := flag.NewFlagSet("fake", flag.ContinueOnError)
	flags.StringVar(&o.Socket, "listen", "", "socket to listen on")
	flags.StringVar(&o.Handler, "handler", "", "handler of all pods")
	flags.IntVar(&o.Pods, "pods", 0, "number of pods")
	flags.IntVar(&o.Containers, "containers", 1, "containers in each pod")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return role.Fake(ctx, o)
}

// between plays what stands between two sockets.
func between(name string, play func(ctx context.Context, listen, upstream string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		flags := flag.NewFlagSet(name, flag.ContinueOnError)
		listen := flags.String("listen", "", "socket to listen on")
		upstream := flags.String("upstream", "", "socket to forward to")
		if err := flags.Parse(args); err != nil {
			return err
		}
		return play(ctx, *listen, *upstream)
	}
}
