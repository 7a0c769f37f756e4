package backend

import (
	"context"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// Owner returns the backend that a sandbox or container id belongs to. An id
// that routing does not know, a short one above all, is asked for everywhere:
//
//   - known to one backend: that one, and routing has learnt it;
//   - a short id known to two: InvalidArgument naming both;
//   - known to none while a backend is away: Unavailable, since it may be there;
//   - known to none, or empty: the default backend, whose answer is the answer.
func (s *Set) Owner(ctx context.Context, kind rawcri.IDKind, id []byte) (*Backend, error) {
	if s.Single() || len(id) == 0 {
		return s.Default(), nil
	}
	look := s.Index.ContainerOwner
	if kind == rawcri.SandboxID {
		look = s.Index.SandboxOwner
	}
	if name, ok := look(id); ok && s.byName[name] != nil { // Else a reload is about to add it.
		return s.byName[name], nil
	}
	if !utf8.Valid(id) {
		return nil, status.Errorf(codes.InvalidArgument, "%s id %q is not valid UTF-8", noun(kind), id)
	}
	return s.ask(ctx, kind, string(id))
}

// Exactly returns the backend of an id of any kind that routing knows in
// full; nil when it does not.
func (s *Set) Exactly(id []byte) *Backend {
	if name, ok := s.Index.ContainerOwner(id); ok {
		return s.byName[name]
	}
	if name, ok := s.Index.SandboxOwner(id); ok {
		return s.byName[name]
	}
	return nil
}

func (s *Set) ask(ctx context.Context, kind rawcri.IDKind, id string) (*Backend, error) {
	found := make([]bool, len(s.all))
	errs := make([]error, len(s.all))
	var wg sync.WaitGroup
	for i, b := range s.all {
		wg.Go(func() { found[i], errs[i] = s.has(ctx, b, kind, id) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}

	var owner *Backend
	for i, b := range s.all {
		switch {
		case !found[i]:
		case owner == nil:
			owner = b
		default:
			return nil, status.Errorf(codes.InvalidArgument,
				"%s %q is ambiguous: it matches one on backend %q and one on backend %q; give more of the id", noun(kind), id, owner.Name, b.Name)
		}
	}
	if owner != nil {
		return owner, nil
	}
	for i, b := range s.all {
		if errs[i] != nil {
			return nil, status.Errorf(codes.Unavailable, "%s %q is not known, and it may be on backend %q, which does not answer: %s",
				noun(kind), id, b.Name, message(errs[i]))
		}
	}
	return s.Default(), nil
}

func noun(kind rawcri.IDKind) string {
	if kind == rawcri.SandboxID {
		return "pod sandbox"
	}
	return "container"
}

// has asks one backend for an id, which may be short, and learns what it
// answers. A backend that does not answer is away: only one question waits.
func (s *Set) has(ctx context.Context, b *Backend, kind rawcri.IDKind, id string) (bool, error) {
	if !b.Up() {
		return false, b.Away()
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	var n int
	var err error
	if kind == rawcri.SandboxID {
		n, err = s.findSandboxes(limited, b, &runtimeapi.PodSandboxFilter{Id: id})
	} else {
		n, err = s.findContainers(limited, b, &runtimeapi.ContainerFilter{Id: id})
	}
	if err != nil && IsAway(ctx, err) {
		b.Suspect(err)
	}
	return n > 0, err
}

func (s *Set) findContainers(ctx context.Context, b *Backend, filter *runtimeapi.ContainerFilter) (int, error) {
	reading := s.Index.Rebuild(b.Name)
	list, err := b.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: filter})
	var found []routing.Container
	for _, c := range list.GetContainers() {
		found = append(found, containerRecord(b, c))
	}
	for _, c := range reading.Learn(nil, found) {
		s.clash(c.ID, c.Before, b.Name)
	}
	return len(found), b.explain(err, b.conn)
}

func (s *Set) findSandboxes(ctx context.Context, b *Backend, filter *runtimeapi.PodSandboxFilter) (int, error) {
	reading := s.Index.Rebuild(b.Name)
	list, err := b.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: filter})
	var found []routing.Sandbox
	for _, p := range list.GetItems() {
		found = append(found, s.sandboxRecord(b, p))
	}
	for _, c := range reading.Learn(found, nil) {
		s.clash(c.ID, c.Before, b.Name)
	}
	return len(found), b.explain(err, b.conn)
}

// FindPod makes routing learn the sandboxes of a pod, wherever they are: the
// answer to a create may have been lost on its way. The error, Unavailable, is
// that of a backend which did not answer, so that there may be more of them.
func (s *Set) FindPod(ctx context.Context, uid string) error {
	filter := &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": uid}}
	errs := make([]error, len(s.all))
	var wg sync.WaitGroup
	for i, b := range s.all {
		wg.Go(func() { errs[i] = s.findOn(ctx, b, filter) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) findOn(ctx context.Context, b *Backend, filter *runtimeapi.PodSandboxFilter) error {
	if !b.Up() {
		return b.Away()
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	_, err := s.findSandboxes(limited, b, filter)
	if err == nil {
		return nil
	}
	if IsAway(ctx, err) {
		b.Suspect(err)
	}
	return status.Errorf(codes.Unavailable, "backend %q cannot be asked for its pods: %s", b.Name, message(err))
}
