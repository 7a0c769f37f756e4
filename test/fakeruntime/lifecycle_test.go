package fakeruntime

import (
	"context"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodLifecycle(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{Runtimes: []string{"runsc"}})
	pod, id := runPod(t, c, "web")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(pod) || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
		t.Errorf("ids are %q and %q, want 64 hexadecimal digits", pod, id)
	}
	if ip := must[*runtimeapi.PodSandboxStatusResponse](t)(c.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})).GetStatus().GetNetwork().GetIp(); ip == "" {
		t.Error("a ready sandbox has no address")
	}
	st := must[*runtimeapi.ContainerStatusResponse](t)(c.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true}))
	s := st.GetStatus()
	if s.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || s.GetImage().GetImage() != "docker.io/library/busybox:latest" ||
		s.GetImageId() != digestOf("docker.io/library/busybox:latest") || s.GetImageRef() == s.GetImageId() ||
		s.GetLogPath() != "/var/log/pods/web/main/0.log" || s.GetStartedAt() <= s.GetCreatedAt() || len(st.GetInfo()) == 0 {
		t.Errorf("status of a running container is %v", st)
	}
	must[*runtimeapi.StopContainerResponse](t)(c.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 30}))
	s = must[*runtimeapi.ContainerStatusResponse](t)(c.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})).GetStatus()
	if s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || s.GetExitCode() != 143 || s.GetReason() != "Error" || s.GetFinishedAt() == 0 {
		t.Errorf("status of a stopped container is %v", s)
	}
	must[*runtimeapi.StopPodSandboxResponse](t)(c.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}))
	sandbox := must[*runtimeapi.PodSandboxStatusResponse](t)(c.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})).GetStatus()
	if sandbox.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || sandbox.GetNetwork().GetIp() != "" {
		t.Errorf("a stopped sandbox is %v", sandbox)
	}
	must[*runtimeapi.RemovePodSandboxResponse](t)(c.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}))
	if len(r.Sandboxes())+len(r.Containers()) != 0 {
		t.Errorf("left after the removal: %v %v", r.Sandboxes(), r.Containers())
	}
	runPod(t, c, "web") // The name is free again.
}

// answer is a call and the error that it must have, "" being none.
type answer struct {
	name string
	call func(context.Context) error
	want string
}

func ofSandboxes(c client) []answer {
	return []answer{
		{"name taken", run(c, podConfig("a"), ""), `Unknown: failed to reserve sandbox name "a_ns_uid-a_0": name "a_ns_uid-a_0" is reserved for "aa11"`},
		{"no metadata", run(c, nil, ""), "Unknown: sandbox config must include metadata"},
		{"known handler", run(c, podConfig("k"), "runsc"), ""},
		{"pod status unknown", func(ctx context.Context) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "zz"})
			return err
		}, "NotFound: an error occurred when try to find sandbox: not found"},
		{"pod status empty", func(ctx context.Context) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{})
			return err
		}, "Unknown: an error occurred when try to find sandbox: prefix can't be empty"},
		{"pod status ambiguous", func(ctx context.Context) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "aa"})
			return err
		}, "Unknown: an error occurred when try to find sandbox: Multiple IDs found with provided prefix: aa"},
		{"pod status prefix", func(ctx context.Context) error {
			_, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "bb"})
			return err
		}, ""},
		{"stop pod unknown", func(ctx context.Context) error {
			_, err := c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: "zz"})
			return err
		}, ""},
		{"stop pod ambiguous", func(ctx context.Context) error {
			_, err := c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: "aa"})
			return err
		}, `Unknown: an error occurred when try to find sandbox "aa": Multiple IDs found with provided prefix: aa`},
		{"remove pod unknown", func(ctx context.Context) error {
			_, err := c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: "zz"})
			return err
		}, ""},
	}
}

func ofContainers(c client, pod, stopped, running, orphan string) []answer {
	return []answer{
		{"stop container unknown", func(ctx context.Context) error {
			_, err := c.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: "zz"})
			return err
		}, ""},
		{"remove container unknown", func(ctx context.Context) error {
			_, err := c.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: "zz"})
			return err
		}, ""},
		{"remove container empty", func(ctx context.Context) error {
			_, err := c.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{})
			return err
		}, `Unknown: an error occurred when try to find container "": prefix can't be empty`},
		{"container status unknown", func(ctx context.Context) error {
			_, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: "zz"})
			return err
		}, `NotFound: an error occurred when try to find container "zz": not found`},
		{"start a running container", func(ctx context.Context) error {
			_, err := c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: running})
			return err
		}, `Unknown: failed to set starting state for container "cc11": container is in CONTAINER_RUNNING state`},
		{"start in a stopped sandbox", func(ctx context.Context) error {
			_, err := c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: orphan})
			return err
		}, `Unknown: sandbox container "bb11" is not running`},
		{"create in an unknown sandbox", create(c, "zz", "busybox"), `NotFound: failed to find sandbox id "zz": not found`},
		{"create in a stopped sandbox", create(c, stopped, "busybox"), `Unknown: sandbox container "bb11" is not running`},
		{"create without its image", create(c, pod, "nginx:1"), `NotFound: failed to resolve image "nginx:1": not found`},
		{"create with a taken name", create(c, pod, "busybox"), `Unknown: failed to reserve container name "main_a_ns_uid-a_0"; ` +
			`check if another CreateContainer request is in progress: name "main_a_ns_uid-a_0" is reserved for "cc11"`},
	}
}

func ofRunning(c client, exited string) []answer {
	return []answer{
		{"exec sync unknown", func(ctx context.Context) error {
			_, err := c.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: "zz"})
			return err
		}, `NotFound: failed to exec in container: failed to find container "zz" in store: not found`},
		{"exec sync exited", func(ctx context.Context) error {
			_, err := c.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: exited})
			return err
		}, "Unknown: failed to exec in container: container is in CONTAINER_EXITED state"},
		{"exec unknown", func(ctx context.Context) error {
			_, err := c.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: "zz"})
			return err
		}, `NotFound: failed to find container "zz" in store: not found`},
		{"attach exited", func(ctx context.Context) error {
			_, err := c.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: exited})
			return err
		}, "Unknown: container is in CONTAINER_EXITED state"},
		{"port forward unknown", func(ctx context.Context) error {
			_, err := c.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: "zz"})
			return err
		}, `NotFound: failed to find sandbox "zz": not found`},
		{"container stats unknown", func(ctx context.Context) error {
			_, err := c.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: "zz"})
			return err
		}, "NotFound: failed to find container: not found"},
		{"pod stats empty", func(ctx context.Context) error {
			_, err := c.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{})
			return err
		}, "Unknown: an error occurred when trying to find sandbox : prefix can't be empty"},
		{"reopen log exited", func(ctx context.Context) error {
			_, err := c.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: exited})
			return err
		}, "Unknown: container is not running"},
		{"update resources unknown", func(ctx context.Context) error {
			_, err := c.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: "zz"})
			return err
		}, "NotFound: failed to find container: not found"},
		{"update pod resources unknown", func(ctx context.Context) error {
			_, err := c.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "zz"})
			return err
		}, "NotFound: failed to find sandbox: not found"},
	}
}

func ofTheRest(c client, pod, running string) []answer {
	return []answer{
		{"checkpoint container", func(ctx context.Context) error {
			_, err := c.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: running})
			return err
		}, ""},
		{"checkpoint pod", func(ctx context.Context) error {
			_, err := c.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{PodSandboxId: pod})
			return err
		}, "Unimplemented: unknown method CheckpointPod for service runtime.v1.RuntimeService"},
		{"switched off", func(ctx context.Context) error {
			_, err := c.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
			return err
		}, "Unimplemented: unknown method RuntimeConfig for service runtime.v1.RuntimeService"},
		{"switched off stream", func(ctx context.Context) error {
			stream, err := c.StreamImages(ctx, &runtimeapi.StreamImagesRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		}, "Unimplemented: unknown method StreamImages for service runtime.v1.ImageService"},
		{"remove image unknown", func(ctx context.Context) error {
			_, err := c.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "nginx"}})
			return err
		}, ""},
	}
}

// TestAnswers has every call whose error or success a caller can tell from another runtime's.
func TestAnswers(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{Runtimes: []string{"runsc"}, Unimplemented: []string{"RuntimeConfig", "StreamImages"}})
	pod := r.AddSandbox(Sandbox{ID: "aa11", Config: podConfig("a")})
	r.AddSandbox(Sandbox{ID: "aa22"})
	stopped := r.AddSandbox(Sandbox{ID: "bb11", State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY})
	running := r.AddContainer(Container{ID: "cc11", SandboxID: pod, State: runtimeapi.ContainerState_CONTAINER_RUNNING, Config: containerConfig("main", "busybox")})
	exited := r.AddContainer(Container{ID: "cc22", SandboxID: pod, State: runtimeapi.ContainerState_CONTAINER_EXITED, ExitCode: 3})
	orphan := r.AddContainer(Container{ID: "dd11", SandboxID: stopped})
	answers := slices.Concat(ofSandboxes(c), ofContainers(c, pod, stopped, running, orphan), ofRunning(c, exited), ofTheRest(c, pod, running))
	for _, tt := range answers {
		t.Run(tt.name, func(t *testing.T) { // They share one state, which none of them changes for another.
			t.Parallel()
			wantError(t, tt.call(t.Context()), tt.want)
		})
	}
}

func run(c client, config *runtimeapi.PodSandboxConfig, handler string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
		return err
	}
}

func create(c client, sandbox, image string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: sandbox, Config: containerConfig("main", image), SandboxConfig: podConfig("a"),
		})
		return err
	}
}

func TestUnknownHandlerFreesTheName(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	err := run(c, podConfig("a"), "kata")(t.Context())
	if status.Code(err) != codes.Unknown || !regexp.MustCompile(`no runtime for "kata" is configured$`).MatchString(err.Error()) {
		t.Errorf("an unknown handler gives %v", err)
	}
	if err := run(c, podConfig("a"), "")(t.Context()); err != nil {
		t.Errorf("the name was not released: %v", err)
	}
	if len(r.Sandboxes()) != 1 {
		t.Errorf("sandboxes are %v", r.Sandboxes())
	}
}

func TestRestorePod(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{PodCheckpoints: true})
	r.AddImage("busybox", nil)
	resp := must[*runtimeapi.RestorePodResponse](t)(c.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{
		Config:           podConfig("a"),
		ContainerConfigs: []*runtimeapi.ContainerConfig{containerConfig("one", "busybox"), containerConfig("two", "busybox")},
	}))
	if len(resp.GetRestoredContainers()) != 2 || len(r.Sandboxes()) != 1 || r.Containers()[1].GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("restored %v, state %v", resp, r.Containers())
	}
}

func TestRestartKeepsAndResetForgets(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	pod, _ := runPod(t, c, "a")
	r.Stop()
	r.Stop()
	_, err := c.Version(t.Context(), &runtimeapi.VersionRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a stopped runtime answers %v", err)
	}
	r.Restart()
	c = dial(t, r)
	if _, err := c.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	r.Reset()
	_, err = c.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	wantError(t, err, "NotFound: an error occurred when try to find sandbox: not found")
	if len(r.Images())+len(r.Containers())+len(r.Sandboxes()) != 0 {
		t.Error("the reset left something")
	}
	runPod(t, c, "a")
}
