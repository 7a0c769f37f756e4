package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

const (
	// leaseTime is how long what a killed proxy left stays; it is longer than any
	// work takes.
	leaseTime = 24 * time.Hour
	// releaseTimeout is how long it may take to collect what failed work made.
	releaseTimeout = 30 * time.Second
)

// leased runs work under a lease: what it makes is not collected while nothing
// refers to it. When it fails, all of that is collected before leased returns.
func (s *Store) leased(ctx context.Context, work func(context.Context) error) error {
	lease, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("create a lease: %w", err)
	}
	err = work(leases.WithLease(ctx, lease.ID))
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // Whatever came of it, such as a stream's end.
	}
	var how []leases.DeleteOpt
	if err != nil {
		how = append(how, leases.SynchronousDelete)
	}
	// The caller may be gone, which is a reason to clean up and not to leave it.
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if deleteErr := s.leases.Delete(release, lease, how...); deleteErr != nil {
		return errors.Join(err, fmt.Errorf("delete the lease %s, which containerd does by itself within %s: %w", lease.ID, leaseTime, deleteErr))
	}
	return err
}
