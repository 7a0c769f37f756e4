package fakeruntime

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const future = "/runtime.v1.RuntimeService/FromTheFuture"

func TestJournal(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx, cancel := context.WithDeadline(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-1"), time.Now().Add(time.Minute))
	defer cancel()
	// The bytes have an unknown field before the known ones, which an encoder would never write.
	raw := append(unknownField("x"), must[[]byte](t)(proto.Marshal(&runtimeapi.StopContainerRequest{ContainerId: "y", Timeout: 5}))...)
	if _, err := rawCall(ctx, c, runtimeapi.RuntimeService_StopContainer_FullMethodName, raw); err != nil {
		t.Fatal(err)
	}
	must[*runtimeapi.VersionResponse](t)(c.Version(t.Context(), &runtimeapi.VersionRequest{Version: "0.1.0"}))
	calls := r.Journal()
	if len(calls) != 2 || len(r.Calls("StopContainer")) != 1 || calls[1].Short() != "Version" {
		t.Fatalf("the journal is %v", calls)
	}
	call := calls[0]
	req, ok := call.Request.(*runtimeapi.StopContainerRequest)
	if !ok || req.GetContainerId() != "y" || req.GetTimeout() != 5 {
		t.Errorf("the request is %v", call.Request)
	}
	if !bytes.Equal(call.Raw, raw) {
		t.Errorf("the raw request is %q, want %q", call.Raw, raw)
	}
	if got := call.Metadata.Get("traceparent"); len(got) != 1 || got[0] != "00-1" {
		t.Errorf("the metadata is %v", call.Metadata)
	}
	if left := time.Until(call.Deadline); left <= 50*time.Second || left > time.Minute {
		t.Errorf("the deadline is in %v", left)
	}
	if !calls[1].Deadline.IsZero() {
		t.Errorf("a call without a deadline has %v", calls[1].Deadline)
	}
	r.ClearJournal()
	if len(r.Journal()) != 0 {
		t.Error("ClearJournal left something")
	}
}

func TestUnknownMethod(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	_, err := rawCall(t.Context(), c, future, []byte{10, 1, 'x'})
	wantError(t, err, "Unimplemented: unknown method FromTheFuture for service runtime.v1.RuntimeService")
	r.Configure(func(o *Options) {
		o.UnknownMethod = func(method string, request []byte) ([]byte, error) {
			return append([]byte(method), request...), nil
		}
	})
	got, err := rawCall(t.Context(), c, future, []byte{10, 1, 'x'})
	if err != nil || string(got) != future+"\x0a\x01x" {
		t.Errorf("the echo is %q, %v", got, err)
	}
	if calls := r.Calls("FromTheFuture"); len(calls) != 2 || calls[0].Request != nil || string(calls[0].Raw) != "\x0a\x01x" || calls[0].Method != future {
		t.Errorf("the journal is %v", calls)
	}
}

func TestHeaderTrailerAndUnknownField(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{Name: "left", UnknownField: true})
	r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{})})
	var header, trailer metadata.MD
	resp := must[*runtimeapi.VersionResponse](t)(c.Version(t.Context(), &runtimeapi.VersionRequest{}, grpc.Header(&header), grpc.Trailer(&trailer)))
	if header.Get(HeaderKey)[0] != "left" || trailer.Get(TrailerKey)[0] != "left" || resp.GetRuntimeName() != "left" {
		t.Errorf("header %v, trailer %v, response %v", header, trailer, resp)
	}
	containers := must[*runtimeapi.ListContainersResponse](t)(c.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}))
	sandboxes := must[*runtimeapi.ListPodSandboxResponse](t)(c.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}))
	images := must[*runtimeapi.ListImagesResponse](t)(c.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}))
	for _, m := range []proto.Message{resp, containers, sandboxes, images, containers.GetContainers()[0], sandboxes.GetItems()[0], images.GetImages()[0]} {
		if got := m.ProtoReflect().GetUnknown(); !bytes.Equal(got, unknownField("left")) {
			t.Errorf("%T has the unknown fields %q", m, got)
		}
	}
	header, trailer = nil, nil
	_, err := c.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "zz"}, grpc.Header(&header), grpc.Trailer(&trailer))
	if status.Code(err) != codes.NotFound || header.Get(HeaderKey)[0] != "left" || trailer.Get(TrailerKey)[0] != "left" {
		t.Errorf("a failed call has header %v, trailer %v, error %v", header, trailer, err)
	}
}

func TestMessageLimits(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{Exec: func(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
		return &runtimeapi.ExecSyncResponse{Stdout: make([]byte, maxMessage)}, nil
	}})
	id := r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{}), State: runtimeapi.ContainerState_CONTAINER_RUNNING})
	_, err := c.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an answer beyond the limit gives %v", err)
	}
	if _, err := rawCall(t.Context(), c, future, make([]byte, maxMessage+1)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request beyond the limit gives %v", err)
	}
}

func TestManyCallers(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx := bounded(t)
	subscribe(ctx, t, c)
	r.AddImage("busybox", nil)
	var group sync.WaitGroup
	for n := range 200 {
		group.Go(func() {
			if err := cycle(ctx, c, podConfig(strconv.Itoa(n))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Go(func() {
		for range 20 {
			r.Journal()
			r.Containers()
			r.Configure(func(o *Options) { o.StreamBatch++ })
			r.Inject("Version", Fault{Times: 1})
		}
	})
	group.Wait()
	if len(r.Sandboxes())+len(r.Containers()) != 0 || len(r.Calls("RunPodSandbox")) != 200 {
		t.Errorf("left: %d sandboxes, %d containers; %d pods ran", len(r.Sandboxes()), len(r.Containers()), len(r.Calls("RunPodSandbox")))
	}
}

// cycle is one pod's life.
func cycle(ctx context.Context, c client, config *runtimeapi.PodSandboxConfig) error {
	pod, err := c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}
	created, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.GetPodSandboxId(), Config: containerConfig("main", "busybox"), SandboxConfig: config,
	})
	if err != nil {
		return err
	}
	if _, err := c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
		return err
	}
	if _, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil {
		return err
	}
	if _, err := c.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: created.GetContainerId(), Timeout: 1}); err != nil {
		return err
	}
	_, err = c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.GetPodSandboxId()})
	return err
}

// rawCodec sends and receives bytes.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	raw, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("send %T", v)
	}
	return *raw, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	raw, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("receive %T", v)
	}
	*raw = bytes.Clone(data)
	return nil
}

func rawCall(ctx context.Context, c client, method string, request []byte) ([]byte, error) {
	var response []byte
	err := c.conn.Invoke(ctx, method, &request, &response, grpc.ForceCodec(rawCodec{}), grpc.MaxCallSendMsgSize(2*maxMessage))
	return response, err
}
