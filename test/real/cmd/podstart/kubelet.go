package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// podWithin is far more than a pod takes from its start to its removal.
const podWithin = time.Minute

// kubelet is the one connection that a kubelet has to its runtime.
type kubelet struct {
	name    string
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
}

func dial(name, endpoint string) (*kubelet, error) {
	conn, err := rig.Dial(endpoint)
	if err != nil {
		return nil, err
	}
	return &kubelet{name: name, conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn)}, nil
}

func (k *kubelet) close() error { return k.conn.Close() }

// pod is one pod of one container, from its start to its removal.
type pod struct {
	*kubelet

	config    *runtimeapi.PodSandboxConfig
	spec      *runtimeapi.ImageSpec
	sandbox   string // id
	container string // id
}

// start makes the calls of a pod's start, one after another as the kubelet does
// (pkg/kubelet/kuberuntime: SyncPod and startContainer), until the container runs.
func (p *pod) start(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	for _, step := range []func(context.Context) error{p.runSandbox, p.ensureImage, p.startContainer, p.waitRunning} {
		if err := step(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(begun), nil
}

func (p *pod) runSandbox(ctx context.Context) error {
	ran, err := p.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler})
	if err != nil {
		return err
	}
	p.sandbox = ran.GetPodSandboxId()
	_, err = p.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.sandbox})
	return err
}

// ensureImage asks for the image, pulls it if it is absent, and asks for its id
// and its user.
func (p *pod) ensureImage(ctx context.Context) error {
	there, err := p.imageThere(ctx, p.spec)
	if err != nil {
		return err
	}
	if !there {
		if _, err := p.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: p.spec, SandboxConfig: p.config}); err != nil {
			return err
		}
	}
	for _, spec := range []*runtimeapi.ImageSpec{p.spec, {Image: image}} {
		if there, err = p.imageThere(ctx, spec); err != nil || !there {
			return errors.Join(err, fmt.Errorf("image %s is not known to be there after it was ensured", image))
		}
	}
	return nil
}

func (p *pod) imageThere(ctx context.Context, spec *runtimeapi.ImageSpec) (bool, error) {
	status, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	return status.GetImage() != nil, err
}

func (p *pod) startContainer(ctx context.Context) error {
	created, err := p.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, Config: rig.Container(p.config, "app", image), SandboxConfig: p.config,
	})
	if err != nil {
		return err
	}
	p.container = created.GetContainerId()
	_, err = p.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.container})
	return err
}

// waitRunning asks again at once: a pause would hide what is measured.
func (p *pod) waitRunning(ctx context.Context) error {
	for {
		status, err := p.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.container})
		if err != nil {
			return err
		}
		switch state := status.GetStatus().GetState(); state {
		case runtimeapi.ContainerState_CONTAINER_RUNNING:
			return nil
		case runtimeapi.ContainerState_CONTAINER_CREATED:
		default:
			return fmt.Errorf("container %s is %s after its start", p.container, state)
		}
	}
}

func (p *pod) remove(ctx context.Context) error {
	if _, err := p.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	_, err := p.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.sandbox})
	return err
}
