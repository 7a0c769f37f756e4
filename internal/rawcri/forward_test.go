package rawcri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/socket"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// poison is a buffer pool that ruins what it gets back, so that a buffer used
// after it was freed shows.
type poison struct{}

func (poison) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

func (poison) Put(b *[]byte) {
	for i := range *b {
		(*b)[i] = 0xdb
	}
}

func TestMain(m *testing.M) {
	experimental.SetDefaultBufferPool(poison{})
	goleak.VerifyTestMain(m)
}

// twoInOne serves the containers of two runtimes as one list, sandboxes with
// every handler renamed, and all else from the first.
func twoInOne(t *testing.T, upstreams ...*fakeruntime.Runtime) *grpc.ClientConn {
	t.Helper()
	var conns []*grpc.ClientConn
	for _, u := range upstreams {
		conns = append(conns, connect(t, strings.TrimPrefix(u.Endpoint(), "unix://")))
	}
	conn, _ := serve(t, conns...)
	return conn
}

func serve(t *testing.T, conns ...*grpc.ClientConn) (*grpc.ClientConn, *Server) {
	t.Helper()
	handle := func(ctx context.Context, call *Call) error {
		switch call.Method.Name {
		case "ListContainers":
			var parts []*Frame
			for _, c := range conns {
				part, err := Fetch(ctx, c, call.Method.FullName, call.Request)
				if err != nil {
					return err
				}
				defer part.Free()
				parts = append(parts, part)
			}
			merged, err := Merge(call.Method.Name, parts)
			if err != nil {
				return err
			}
			return call.Send(merged)
		case "ListPodSandbox", "StreamPodSandboxes":
			return Forward(ctx, call, conns[0], func(f *Frame) (*Frame, error) {
				defer f.Free()
				return call.Method.Answer.Rewrite(f, func([]byte, []byte) (string, bool) { return "renamed", true })
			})
		default:
			return Forward(ctx, call, conns[0], nil)
		}
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	server := NewServer(ServerOptions{
		Catalog: NewCatalog(), Services: map[string]Handler{RuntimeService: handle},
		Observe: func(*Call) func(error) { return func(error) {} }, Log: logrus.NewEntry(log),
	})
	path := filepath.Join(t.TempDir(), "s")
	if len(path) > 100 {
		t.Fatalf("%s is too long for a socket", path)
	}
	listener, err := socket.Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Shutdown(0)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return connect(t, path), server
}

func connect(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func ids(list []*runtimeapi.Container) []string {
	var all []string
	for _, c := range list {
		all = append(all, c.GetId())
	}
	slices.Sort(all)
	return all
}

// TestBuffers: no message holds a buffer that was given back, under many
// callers and with lists of many buffers.
func TestBuffers(t *testing.T) {
	t.Parallel()
	a, b := fakeruntime.Start(t, fakeruntime.Options{Name: "a", NoJournal: true}), fakeruntime.Start(t, fakeruntime.Options{Name: "b", NoJournal: true})
	a.Fill(40, 5)
	b.Fill(40, 5)
	want := ids(append(a.Containers(), b.Containers()...))
	client := runtimeapi.NewRuntimeServiceClient(twoInOne(t, a, b))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 15 {
				if err := useBuffers(t.Context(), client, want, a.Containers()[i].GetId()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func useBuffers(ctx context.Context, client runtimeapi.RuntimeServiceClient, want []string, id string) error {
	list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	if got := ids(list.GetContainers()); !slices.Equal(got, want) {
		return fmt.Errorf("merged list of %d containers, want the %d of both", len(got), len(want))
	}
	sandboxes, err := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, s := range sandboxes.GetItems() {
		if s.GetRuntimeHandler() != "renamed" || len(s.GetId()) != 64 {
			return fmt.Errorf("rewritten sandbox: %v", s)
		}
	}
	got, err := client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return err
	}
	if got.GetStatus().GetId() != id {
		return fmt.Errorf("status of %s: %v", id, got.GetStatus())
	}
	return nil
}

// TestStatusArrivesUnchanged: code, message, details, header and trailer.
func TestStatusArrivesUnchanged(t *testing.T) {
	t.Parallel()
	up := fakeruntime.Start(t, fakeruntime.Options{Name: "up"})
	want, err := status.New(codes.FailedPrecondition, "the runtime's own words").WithDetails(durationpb.New(42))
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"StopContainer", "StreamContainers"} {
		up.Inject(method, fakeruntime.Fault{Err: want.Err()})
	}
	client := runtimeapi.NewRuntimeServiceClient(twoInOne(t, up))
	var header, trailer metadata.MD
	_, err = client.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: "c"}, grpc.Header(&header), grpc.Trailer(&trailer))
	checkStatus(t, err, want)
	if !slices.Equal(header.Get(fakeruntime.HeaderKey), []string{"up"}) || !slices.Equal(trailer.Get(fakeruntime.TrailerKey), []string{"up"}) {
		t.Errorf("header %v, trailer %v", header, trailer)
	}
	stream, err := client.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	checkStatus(t, err, want)
}

func checkStatus(t *testing.T, err error, want *status.Status) {
	t.Helper()
	got := status.Convert(err)
	if got.Code() != want.Code() || got.Message() != want.Message() || len(got.Details()) != 1 {
		t.Errorf("got %v with %d details, want %v with one", err, len(got.Details()), want)
	}
}

// TestDeadlineAndCancel: both reach the upstream.
func TestDeadlineAndCancel(t *testing.T) {
	t.Parallel()
	up := fakeruntime.Start(t, fakeruntime.Options{Name: "up"})
	client := runtimeapi.NewRuntimeServiceClient(twoInOne(t, up))
	if _, err := client.Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
		t.Fatal(err)
	}
	if call := up.Calls("Version")[0]; !call.Deadline.IsZero() {
		t.Errorf("a deadline that the caller did not set: %s", call.Deadline)
	}
	up.Inject("StopContainer", fakeruntime.Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: "c"})
		done <- err
	}()
	if _, err := up.WaitCalls(t.Context(), "StopContainer", 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
}

// TestShutdownEndsEvents: an event stream does not hold up a shutdown, and says
// why it ends.
func TestShutdownEndsEvents(t *testing.T) {
	t.Parallel()
	up := fakeruntime.Start(t, fakeruntime.Options{Name: "up"})
	conn, server := serve(t, connect(t, strings.TrimPrefix(up.Endpoint(), "unix://")))
	stream, err := runtimeapi.NewRuntimeServiceClient(conn).GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.WaitSubscribers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	server.Shutdown(time.Hour)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("got %v, want Unavailable and the reason", err)
	}
}

// TestUnknownService names the services there are.
func TestUnknownService(t *testing.T) {
	t.Parallel()
	up := fakeruntime.Start(t, fakeruntime.Options{Name: "up"})
	conn := twoInOne(t, up)
	_, err := Fetch(t.Context(), conn, "/runtime.v1alpha2.RuntimeService/Version", NewFrame(nil))
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), RuntimeService) {
		t.Errorf("got %v, want Unimplemented naming what is served", err)
	}
	up2, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+RuntimeService+"/Version")
	if err != nil {
		t.Fatal(err)
	}
	if err := up2.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := Next(up2); status.Code(err) != codes.InvalidArgument || errors.Is(err, io.EOF) {
		t.Errorf("without a message: %v, want InvalidArgument", err)
	}
}
