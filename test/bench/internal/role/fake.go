package role

import (
	"context"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// FakeOptions describe one fake runtime.
type FakeOptions struct {
	Socket     string // path
	Handler    string // of all its pods
	Pods       int
	Containers int // in each pod
}

// Fake serves a runtime in memory, with running pods as a kubelet makes them,
// until ctx ends. It answers while it still fills itself: whoever waits for it
// counts its containers.
func Fake(ctx context.Context, o FakeOptions) error {
	runtime, err := fakeruntime.New(fakeruntime.Options{
		Name: o.Handler, Socket: o.Socket, Runtimes: []string{o.Handler}, NoJournal: true,
	})
	if err != nil {
		return err
	}
	runtime.FillHandler(o.Handler, o.Pods, o.Containers)
	<-ctx.Done()
	return runtime.Close()
}
