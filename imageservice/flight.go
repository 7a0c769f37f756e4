package imageservice

import (
	"context"
	"errors"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// flightKey is what equal pulls have in common. It holds secrets, and so lives
// no longer than the pull.
type flightKey struct {
	store       string
	runtime     string // "" also where the runtime does not get to know it.
	snapshotter string
	image       string // As given.
	auth        account
}

// account is an AuthConfig, to be compared.
type account struct{ username, password, auth, server, identityToken, registryToken, unknown string }

// pulled is what a runtime answered to a pull. The header and trailer come with
// an error too.
type pulled struct {
	response        *runtimeapi.PullImageResponse
	header, trailer metadata.MD
}

// share returns what pull returns, which runs once for all who come with this
// key while it runs. With own, a caller joins what runs but begins nothing that
// others could join: its deadline is the pull's.
func (s *Service) share(ctx context.Context, key flightKey, own bool, pull func(context.Context) (pulled, error)) (answer pulled, shared bool, err error) {
	if own {
		answer, shared, err = s.flights.Join(ctx, key)
		if !shared {
			answer, err = pull(ctx)
			return answer, false, err
		}
	} else {
		answer, shared, err = s.flights.Do(ctx, key, pull)
	}
	if err != nil && errors.Is(err, ctx.Err()) {
		err = status.FromContextError(err).Err()
	}
	return answer, shared, err
}
