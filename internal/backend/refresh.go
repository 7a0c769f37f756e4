package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// seen is what a backend says when it is listed anew.
type seen struct {
	version    *runtimeapi.VersionResponse
	driver     string
	sandboxes  runtimeapi.ListPodSandboxResponse
	containers runtimeapi.ListContainersResponse
}

// refresh lists a backend anew and reports whether it is up. What was listed on a
// connection that is gone by now is listed again.
func (s *Set) refresh(ctx context.Context, b *Backend, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.list(ctx, b)
	for errors.Is(err, errConnectionLost) && ctx.Err() == nil {
		err = s.list(ctx, b)
	}
	if err != nil {
		s.failed(ctx, b, err)
	}
	return err == nil
}

// list asks a backend for everything and takes it for up.
func (s *Set) list(ctx context.Context, b *Backend) error {
	on := b.begin()
	rebuild := s.Index.Rebuild(b.Name)
	sandboxes := s.relist(b, "ListPodSandbox", &b.Sandboxes)
	containers := s.relist(b, "ListContainers", &b.Containers)
	var found seen
	err := b.look(ctx, &found, sandboxes, containers)
	if err == nil {
		err = s.learn(b, rebuild, &found, on)
	} else {
		rebuild.Abort()
	}
	// Only now handler names can be translated: the index knows the sandboxes.
	// Nobody asks for the last list of the only backend.
	keep := err == nil && !s.Single()
	sandboxes.end(keep)
	containers.end(keep)
	return err
}

// learn puts what was seen into the index, and the backend up, unless the
// connection that it was seen on was lost meanwhile.
func (s *Set) learn(b *Backend, rebuild *routing.Rebuild, found *seen, on int) error {
	sandboxes, containers := s.records(b, found)
	for _, c := range rebuild.Finish(sandboxes, containers) {
		s.clash(c.ID, c.Before, b.Name)
	}
	if !b.up(found, on) {
		return errConnectionLost
	}
	s.Log.WithFields(logrus.Fields{
		"backend": b.Name, "version": found.version.GetRuntimeName() + " " + found.version.GetRuntimeVersion(),
		"sandboxes": len(sandboxes), "containers": len(containers),
	}).Info("backend is up")
	if err := s.Usable(b); err != nil {
		s.Log.WithField("backend", b.Name).WithError(err).Error("backend takes no new sandboxes")
	}
	return nil
}

// relist is one unfiltered list on its way, which becomes the last known one.
type relist struct {
	set    *Set
	b      *Backend
	method rawcri.Method
	last   *LastList
	since  uint64
	frame  *rawcri.Frame
}

func (s *Set) relist(b *Backend, name string, last *LastList) *relist {
	method := s.Catalog.Lookup("/" + rawcri.RuntimeService + "/" + name)
	return &relist{set: s, b: b, method: method, last: last, since: last.Begin()}
}

func (l *relist) fetch(ctx context.Context, into proto.Message) error {
	frame, err := rawcri.Fetch(ctx, l.b.conn, l.method.FullName, rawcri.NewFrame(nil), grpc.WaitForReady(true))
	if status.Code(err) == codes.ResourceExhausted {
		return l.b.stream(ctx, l.method.Name, into) // More than a message holds.
	}
	if err != nil {
		return wrap(l.method.Name, err)
	}
	l.frame = frame
	return frame.Decode(into)
}

// List fills into with an unfiltered ListPodSandbox or ListContainers, whatever
// its size: what does not fit into a message comes in several.
func (b *Backend) List(ctx context.Context, name string, into proto.Message) error {
	frame, err := rawcri.Fetch(ctx, b.conn, "/"+rawcri.RuntimeService+"/"+name, rawcri.NewFrame(nil))
	if status.Code(err) == codes.ResourceExhausted {
		return b.stream(ctx, name, into)
	}
	if err != nil {
		return wrap(name, err)
	}
	defer frame.Free()
	return frame.Decode(into)
}

// stream reads a list in several messages. It is not kept: it could not be
// answered in one.
func (b *Backend) stream(ctx context.Context, unary string, into proto.Message) error {
	name := map[string]string{"ListPodSandbox": "StreamPodSandboxes", "ListContainers": "StreamContainers"}[unary]
	up, err := rawcri.Open(ctx, b.conn, "/"+rawcri.RuntimeService+"/"+name, rawcri.NewFrame(nil))
	if err != nil {
		return wrap(name, err)
	}
	for {
		part, err := rawcri.Next(up)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wrap(name, err)
		}
		// On the wire the streamed messages are those of the unary list.
		list := into.ProtoReflect().New().Interface()
		err = part.Decode(list)
		part.Free()
		if err != nil {
			return err
		}
		proto.Merge(into, list)
	}
}

// takeLists makes what a backend has now its last known lists. Without an answer
// there are none before its next list.
func (s *Set) takeLists(ctx context.Context, b *Backend) {
	if !b.Up() {
		return // It is listed when it is up again.
	}
	ctx, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	sandboxes := s.relist(b, "ListPodSandbox", &b.Sandboxes)
	containers := s.relist(b, "ListContainers", &b.Containers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return sandboxes.fetch(ctx, &runtimeapi.ListPodSandboxResponse{}) })
	g.Go(func() error { return containers.fetch(ctx, &runtimeapi.ListContainersResponse{}) })
	err := g.Wait()
	sandboxes.end(err == nil)
	containers.end(err == nil)
	if err != nil {
		s.Log.WithField("backend", b.Name).WithError(err).Warn("a backend does not tell its pods: should it go away before the next list, they are not shown")
	}
}

func (l *relist) end(keep bool) {
	if !keep || l.frame == nil {
		l.frame.Free()
		l.last.End(l.since, nil)
		return
	}
	frame, err := l.set.Translate(l.b, l.method, l.frame, nil)
	if err != nil { // It was decoded a moment ago; the next list will do.
		frame = nil
	}
	l.last.End(l.since, frame)
	frame.Free()
}

// look asks for everything at once. WaitForReady, since the point is to wait
// for the backend; no caller's call does so.
func (b *Backend) look(ctx context.Context, found *seen, sandboxes, containers *relist) error {
	client, wait := b.Runtime(), grpc.WaitForReady(true)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		found.version, err = client.Version(ctx, &runtimeapi.VersionRequest{}, wait)
		return wrap("Version", err)
	})
	g.Go(func() error {
		config, err := client.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{}, wait)
		if status.Code(err) == codes.Unimplemented { // containerd 1.7: the kubelet trusts its own setting too.
			return nil
		}
		if linux := config.GetLinux(); linux != nil {
			found.driver = linux.GetCgroupDriver().String()
		}
		return wrap("RuntimeConfig", err)
	})
	g.Go(func() error { return sandboxes.fetch(ctx, &found.sandboxes) })
	g.Go(func() error { return containers.fetch(ctx, &found.containers) })
	return g.Wait()
}

// wrap names the call that failed, in the words of people, not of gRPC.
func wrap(call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", call, message(err))
}

// begin returns the number of the connection that a listing begins on.
func (b *Backend) begin() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connection.next()
}

// up takes the backend for up if the connection that it was seen on still is.
func (b *Backend) up(found *seen, on int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.connection.open || b.connection.made != on {
		return false
	}
	b.state = State{
		LastErr: b.state.LastErr, LastErrAt: b.state.LastErrAt,
		Up: true, Since: time.Now(), Listed: true,
		Runtime: found.version.GetRuntimeName(), Version: found.version.GetRuntimeVersion(), CgroupDriver: found.driver,
	}
	return true
}

// failed keeps why a backend is not up. It is logged when it changes: the
// backend is asked twice a second.
func (s *Set) failed(ctx context.Context, b *Backend, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // Nobody waited for it: that says nothing of the backend.
	}
	b.mu.Lock()
	first := b.state.Err == nil || b.state.Err.Error() != err.Error()
	b.state.Up, b.state.Err = false, err
	if first {
		b.state.LastErr, b.state.LastErrAt = err, time.Now()
	}
	b.mu.Unlock()
	if first {
		s.Log.WithFields(logrus.Fields{"backend": b.Name, "endpoint": b.Config.Endpoint}).WithError(err).Warn("backend is away")
	}
}

// clash reports one id on two backends. Runtimes make them at random, so it
// is a copied state directory or one runtime under two endpoints.
func (s *Set) clash(id, before, now string) {
	s.Log.WithFields(logrus.Fields{"id": id, "backend": now, "other": before}).
		Error("two backends claim one id: do both endpoints lead to one runtime? calls go to the backend named last")
}

// records turns lists into routing's records.
func (s *Set) records(b *Backend, found *seen) ([]routing.Sandbox, []routing.Container) {
	sandboxes := make([]routing.Sandbox, 0, len(found.sandboxes.GetItems()))
	for _, p := range found.sandboxes.GetItems() {
		sandboxes = append(sandboxes, s.sandboxRecord(b, p))
	}
	containers := make([]routing.Container, 0, len(found.containers.GetContainers()))
	for _, c := range found.containers.GetContainers() {
		containers = append(containers, containerRecord(b, c))
	}
	return sandboxes, containers
}

func (s *Set) sandboxRecord(b *Backend, p *runtimeapi.PodSandbox) routing.Sandbox {
	record := routing.Sandbox{
		ID: p.GetId(), Backend: b.Name,
		Pod:         PodOf(p.GetMetadata()),
		Ready:       p.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		Annotations: p.GetAnnotations(),
	}
	record.Handler = s.Table.HandlerOf(b.Name, p.GetRuntimeHandler())
	if pinned, ok := s.Index.Pinned(record.Pod); ok {
		if h, err := s.Table.Find(pinned); err == nil && h.Backend == b.Name {
			record.Handler = pinned
		}
	}
	return record
}

// PodOf returns the attempt at a pod that a sandbox's metadata names.
func PodOf(m *runtimeapi.PodSandboxMetadata) routing.Pod {
	return routing.Pod{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid(), Attempt: m.GetAttempt()}
}

func containerRecord(b *Backend, c *runtimeapi.Container) routing.Container {
	return routing.Container{
		ID: c.GetId(), Backend: b.Name, Sandbox: c.GetPodSandboxId(),
		Image: routing.Reference(PodImage(c.GetImage())),
	}
}

// PodImage is the name that a container's pod gives its image. A runtime that
// predates the field has what the kubelet resolved it to.
func PodImage(spec *runtimeapi.ImageSpec) string {
	if name := spec.GetUserSpecifiedImage(); name != "" {
		return name
	}
	return spec.GetImage()
}
