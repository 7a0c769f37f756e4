package fakeruntime

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is both services of one fake on one connection.
type client struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient

	conn *grpc.ClientConn
}

func dial(t *testing.T, r *Runtime) client {
	t.Helper()
	conn, err := grpc.NewClient(r.Endpoint(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return client{
		RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(conn),
		ImageServiceClient:   runtimeapi.NewImageServiceClient(conn),
		conn:                 conn,
	}
}

// start is a fake and its client.
func start(t *testing.T, o Options) (*Runtime, client) {
	t.Helper()
	r := Start(t, o)
	return r, dial(t, r)
}

// bounded is a context for what may take long only if it is broken.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// must returns v if there is no error.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func podConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
		Labels:       map[string]string{"app": name},
		Annotations:  map[string]string{"note": name},
		LogDirectory: "/var/log/pods/" + name,
	}
}

func containerConfig(name, image string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Labels:   map[string]string{"container": name},
		LogPath:  name + "/0.log",
	}
}

// runPod runs a sandbox with one started container and returns their ids.
func runPod(t *testing.T, c client, name string) (string, string) {
	t.Helper()
	ctx := t.Context()
	config := podConfig(name)
	pod := must[*runtimeapi.RunPodSandboxResponse](t)(c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config}))
	must[*runtimeapi.PullImageResponse](t)(c.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "busybox"}}))
	created := must[*runtimeapi.CreateContainerResponse](t)(c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.GetPodSandboxId(), Config: containerConfig("main", "busybox"), SandboxConfig: config,
	}))
	must[*runtimeapi.StartContainerResponse](t)(c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()}))
	return pod.GetPodSandboxId(), created.GetContainerId()
}

// wantError compares an error's code and text.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if got := errorText(err); got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}

// errorText is "Code: message", or "" for a success.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return status.Code(err).String() + ": " + status.Convert(err).Message()
}
