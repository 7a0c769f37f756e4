package imageservice

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/containerd"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

const (
	// gaugeTimeout is how long the end of a pull may have to wait for an answer to
	// how far it was.
	gaugeTimeout = time.Second
	// shownTimeout is how long containerd's CRI may take to notice an image that
	// came there past it.
	shownTimeout = 10 * time.Second
	shownPeriod  = 50 * time.Millisecond
)

// noGauge is for what does not tell how far it is.
func noGauge(context.Context) (Progress, bool) { return Progress{}, false }

// pullGauge tells how far a pull is that is about to begin, where the store is a
// containerd's.
func pullGauge(store *backend.Backend, image string) gauge {
	download, err := store.Containerd().Download(image)
	if err != nil {
		return noGauge // The pull says what is wrong with the name.
	}
	silent := false
	return func(ctx context.Context) (Progress, bool) {
		if silent {
			return Progress{}, false
		}
		ctx, cancel := context.WithTimeout(ctx, gaugeTimeout)
		defer cancel()
		p, err := download.Progress(ctx)
		silent = status.Code(err) == codes.Unimplemented
		return Progress(p), err == nil && p.Total > 0
	}
}

// copyBetween returns the plan of a copy from one containerd to another.
func (s *Service) copyBetween(ctx context.Context, source, target *backend.Backend, to routing.Handler, image string) (job, error) {
	for _, store := range []*backend.Backend{source, target} {
		if err := requireContainerd(ctx, store); err != nil {
			return job{}, err
		}
	}
	var far atomic.Pointer[containerd.Progress]
	options := containerd.CopyOptions{
		Snapshotter: s.of(to).Snapshotter, Progress: func(p containerd.Progress) { far.Store(&p) },
	}
	return job{
		what: fmt.Sprintf("copy %s from backend %s to backend %s for handler %s", image, source.Name, target.Name, to.Name),
		do: func(ctx context.Context) (string, error) {
			id, err := containerd.Copy(ctx, source.Containerd(), target.Containerd(), image, options)
			if err != nil {
				return "", err
			}
			return id, waitShown(ctx, target, image, id)
		},
		far: func(context.Context) (Progress, bool) {
			p := far.Load()
			if p == nil {
				return Progress{}, false
			}
			return Progress(*p), true
		},
	}, nil
}

func requireContainerd(ctx context.Context, store *backend.Backend) error {
	ok, err := store.Containerd().Supported(ctx)
	if err != nil {
		return store.ExplainImages(err)
	}
	if !ok {
		return status.Errorf(codes.FailedPrecondition,
			"backend %q is no containerd, and images can be copied between containerds only: pull the image for that handler instead", store.Name)
	}
	return nil
}

// waitShown waits until the runtime shows an image that came past it, which it
// notices by an event: who is told of the copy may use it.
func waitShown(ctx context.Context, store *backend.Backend, image, id string) error {
	limited, cancel := context.WithTimeout(ctx, shownTimeout)
	defer cancel()
	ticker := time.NewTicker(shownPeriod)
	defer ticker.Stop()
	for {
		found, err := held(limited, store, image)
		if err == nil && found == id {
			return nil
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-limited.Done():
			return status.Errorf(codes.DeadlineExceeded, "image %q was copied to backend %q, but its CRI does not show it after %s", image, store.Name, shownTimeout)
		case <-ticker.C:
		}
	}
}
