package load

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is one pod of one container, from its start to its removal.
type pod struct {
	*Client

	handler   string
	image     string
	config    *runtimeapi.PodSandboxConfig
	sandbox   string // id
	container string // id
}

// podStart times the calls of a pod's start, one after another as the kubelet
// makes them. The pod and its image are removed afterwards, outside the time, so
// that the node stays as large as it was.
func podStart(ctx context.Context, c *Client, _ int) (time.Duration, error) {
	n := c.pods.Add(1)
	name := c.podName(n)
	p := &pod{Client: c, handler: c.handler(n), image: "registry.example.com/shop/" + name + ":1.0", config: sandboxConfig(name)}
	begin := time.Now()
	for _, step := range []func(context.Context) error{p.runSandbox, p.ensureImage, p.startContainer} {
		if err := step(ctx); err != nil {
			return 0, fmt.Errorf("start pod %s: %w", name, err)
		}
	}
	took := time.Since(begin)
	if err := p.remove(ctx); err != nil {
		return 0, fmt.Errorf("remove pod %s: %w", name, err)
	}
	return took, nil
}

func (p *pod) runSandbox(ctx context.Context) error {
	resp, err := p.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: p.handler})
	if err != nil {
		return err
	}
	p.sandbox = resp.GetPodSandboxId()
	_, err = p.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.sandbox})
	return err
}

// ensureImage asks whether the image is there, pulls it, and asks for its size
// and its user.
func (p *pod) ensureImage(ctx context.Context) error {
	spec := &runtimeapi.ImageSpec{Image: p.image, Annotations: p.config.GetAnnotations()}
	before, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return err
	}
	if before.GetImage() != nil {
		return fmt.Errorf("image %s is there before it was pulled", p.image)
	}
	if _, err := p.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, SandboxConfig: p.config}); err != nil {
		return err
	}
	for _, spec := range []*runtimeapi.ImageSpec{spec, {Image: p.image}} {
		after, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil {
			return err
		}
		if after.GetImage() == nil {
			return fmt.Errorf("image %s is not there after it was pulled", p.image)
		}
	}
	return nil
}

func (p *pod) startContainer(ctx context.Context) error {
	created, err := p.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, Config: containerConfig(p.image, p.config), SandboxConfig: p.config,
	})
	if err != nil {
		return err
	}
	p.container = created.GetContainerId()
	if _, err := p.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.container}); err != nil {
		return err
	}
	status, err := p.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.container})
	if err != nil {
		return err
	}
	if got := status.GetStatus().GetState(); got != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("container %s is %s after its start", p.container, got)
	}
	return nil
}

func (p *pod) remove(ctx context.Context) error {
	if _, err := p.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.container, Timeout: 30}); err != nil {
		return err
	}
	if _, err := p.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	if _, err := p.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: p.container}); err != nil {
		return err
	}
	if _, err := p.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	_, err := p.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: p.image}})
	return err
}

// sandboxConfig has what a kubelet writes for a pod of a Deployment.
func sandboxConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "team-shop-production"},
		Hostname:     name,
		LogDirectory: "/var/log/pods/team-shop-production_" + name + "_uid-" + name,
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.cluster.local", "cluster.local"}},
		Labels: map[string]string{
			"app.kubernetes.io/name": "checkout-frontend", "app.kubernetes.io/version": "2.31.4", "pod-template-hash": "6d4b75cb6d",
			"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "team-shop-production", "io.kubernetes.pod.uid": "uid-" + name,
		},
		Annotations: map[string]string{
			"kubernetes.io/config.seen": "2026-11-02T09:14:07.318275331Z", "kubernetes.io/config.source": "api", "example.com/pod": name,
		},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods/burstable/pod" + name},
	}
}

// containerConfig has a variable for each of some twenty Services.
func containerConfig(image string, pod *runtimeapi.PodSandboxConfig) *runtimeapi.ContainerConfig {
	const variables = 60
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "web"},
		Image:    &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image},
		LogPath:  "web/0.log",
		Labels: map[string]string{
			"io.kubernetes.container.name": "web", "io.kubernetes.pod.name": pod.GetMetadata().GetName(),
			"io.kubernetes.pod.namespace": pod.GetMetadata().GetNamespace(), "io.kubernetes.pod.uid": pod.GetMetadata().GetUid(),
		},
		Annotations: map[string]string{
			"io.kubernetes.container.hash": "6d4b75cb", "io.kubernetes.container.restartCount": "0",
			"io.kubernetes.container.terminationMessagePath": "/dev/termination-log", "io.kubernetes.pod.terminationGracePeriod": "30",
		},
	}
	for i := range variables {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: fmt.Sprintf("SHOP_%d_SERVICE_HOST", i), Value: fmt.Appendf(nil, "10.96.0.%d", i)})
	}
	return config
}
