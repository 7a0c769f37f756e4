package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// configSeen is the annotation that a kubelet makes anew when it starts.
const configSeen = "kubernetes.io/config.seen"

// PullPolicy is a container's imagePullPolicy.
type PullPolicy int

// The policies; a kubelet's default for a tag other than latest comes first.
const (
	IfNotPresent PullPolicy = iota
	Always
	Never
)

// ErrNeverPull is what the kubelet says of an image that is absent and must not
// be pulled.
var ErrNeverPull = errors.New("ErrImageNeverPull")

// Kubelet makes the calls of k8s.io/kubernetes, pkg/kubelet/kuberuntime and
// pkg/kubelet/images, in their order and with what they carry, for pods that a
// test makes up. It is safe for concurrent use.
type Kubelet struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	// Gate is RuntimeClassInImageCriApi: image calls for a pod name its handler.
	Gate bool

	rig  *Rig
	conn *grpc.ClientConn
}

// KubeletPod is a pod with a sandbox.
type KubeletPod struct {
	Config  *runtimeapi.PodSandboxConfig
	Handler string
	ID      string

	containers *atomic.Uint32 // that were asked for so far
}

// KubeletContainer is one that a pod asks for.
type KubeletContainer struct {
	Image  string
	Policy PullPolicy
	// Auths are the pod's credentials for the image. Each is tried in turn; where
	// there are none, one pull is without.
	Auths   []*runtimeapi.AuthConfig
	Command []string
}

// KubeletStarted is what came of one.
type KubeletStarted struct {
	ID     string
	Pulled bool   // the image was said to be absent, or the policy is Always
	Ref    string // of the image
}

// Kubelet prepares the calls to an endpoint. Close it.
func (r *Rig) Kubelet(endpoint string) (*Kubelet, error) {
	conn, err := Dial(endpoint)
	if err != nil {
		return nil, err
	}
	return &Kubelet{
		Runtime: runtimeapi.NewRuntimeServiceClient(conn), Images: runtimeapi.NewImageServiceClient(conn), rig: r, conn: conn,
	}, nil
}

// Close ends its connection. The pods live on.
func (k *Kubelet) Close() error { return k.conn.Close() }

// RunPod makes the sandbox of a new pod.
func (k *Kubelet) RunPod(ctx context.Context, name, handler string) (*KubeletPod, error) {
	config, err := k.rig.Pod(name)
	if err != nil {
		return nil, err
	}
	config.Annotations[configSeen] = time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
	made, err := k.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	pod := &KubeletPod{Config: config, Handler: handler, ID: made.GetPodSandboxId(), containers: new(atomic.Uint32)}
	_, err = k.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.ID})
	return pod, err
}

// Restarted is the pod as a kubelet that was started again sees it. Its sandbox
// still has the annotations of its making.
func (p *KubeletPod) Restarted() *KubeletPod {
	again := *p
	again.Config = &runtimeapi.PodSandboxConfig{
		Metadata: p.Config.GetMetadata(), Hostname: p.Config.GetHostname(), LogDirectory: p.Config.GetLogDirectory(),
		DnsConfig: p.Config.GetDnsConfig(), Labels: p.Config.GetLabels(), Annotations: maps.Clone(p.Config.GetAnnotations()),
		Linux: p.Config.GetLinux(),
	}
	again.Config.Annotations[configSeen] = time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
	return &again
}

// Start does what startContainer does.
func (k *Kubelet) Start(ctx context.Context, pod *KubeletPod, c KubeletContainer) (started KubeletStarted, err error) {
	spec := k.spec(pod, c.Image)
	if started.Ref, started.Pulled, err = k.ensureImage(ctx, pod, spec, c); err != nil {
		return started, err
	}
	config := Container(pod.Config, "app", c.Image, c.Command...)
	config.Image.Image, config.Metadata.Attempt = started.Ref, pod.containers.Add(1)
	if err := k.setUser(ctx, config, c.Image); err != nil {
		return started, err
	}
	created, err := k.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.ID, Config: config, SandboxConfig: pod.Config,
	})
	if err != nil {
		return started, fmt.Errorf("create: %w", err)
	}
	started.ID = created.GetContainerId()
	if _, err = k.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: started.ID}); err != nil {
		return started, fmt.Errorf("start: %w", err)
	}
	return started, nil
}

// spec is the image as all image calls for a pod but one have it.
func (k *Kubelet) spec(pod *KubeletPod, image string) *runtimeapi.ImageSpec {
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: pod.Config.GetAnnotations()}
	if k.Gate {
		spec.RuntimeHandler = pod.Handler
	}
	return spec
}

// ensureImage is EnsureImageExists.
func (k *Kubelet) ensureImage(
	ctx context.Context, pod *KubeletPod, spec *runtimeapi.ImageSpec, c KubeletContainer,
) (ref string, pulled bool, err error) {
	if c.Policy != Always {
		answer, err := k.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil {
			return "", false, fmt.Errorf("inspect: %w", err)
		}
		if id := answer.GetImage().GetId(); id != "" {
			return id, false, nil
		}
	}
	if c.Policy == Never {
		return "", false, fmt.Errorf("%w: %s", ErrNeverPull, c.Image)
	}
	ref, err = k.pull(ctx, pod, spec, c.Auths)
	return ref, true, err
}

// Pull pulls for a pod, with each of the credentials in turn until one is good,
// and asks for the size.
func (k *Kubelet) Pull(ctx context.Context, pod *KubeletPod, image string, auths ...*runtimeapi.AuthConfig) (string, error) {
	return k.pull(ctx, pod, k.spec(pod, image), auths)
}

func (k *Kubelet) pull(
	ctx context.Context, pod *KubeletPod, spec *runtimeapi.ImageSpec, auths []*runtimeapi.AuthConfig,
) (string, error) {
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	var problems []error
	for _, auth := range auths {
		answer, err := k.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: pod.Config})
		if err != nil {
			problems = append(problems, err)
			continue
		}
		_, err = k.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		return answer.GetImageRef(), err
	}
	if len(problems) == 1 {
		return "", problems[0]
	}
	return "", errors.Join(problems...)
}

// setUser is getImageUser: of an image that is absent here the kubelet makes
// a container of root's.
func (k *Kubelet) setUser(ctx context.Context, config *runtimeapi.ContainerConfig, image string) error {
	answer, err := k.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return fmt.Errorf("ask for the user: %w", err)
	}
	context := config.GetLinux().GetSecurityContext()
	switch found := answer.GetImage(); {
	case found == nil:
		context.RunAsUser = &runtimeapi.Int64Value{Value: 0}
	case found.GetUid() != nil:
		context.RunAsUser = found.GetUid()
	default:
		context.RunAsUsername = found.GetUsername()
	}
	return nil
}

// Remove ends and removes pods.
func (k *Kubelet) Remove(ctx context.Context, pods ...*KubeletPod) error {
	var problems []error
	for _, pod := range pods {
		_, stop := k.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.ID})
		_, remove := k.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.ID})
		problems = append(problems, stop, remove)
	}
	return errors.Join(problems...)
}

// CollectImages is the image garbage collection when the disk is full: it
// removes, by id, each image that no container uses and that is not pinned. It
// leaves those that the test does not own alone, and returns what it removed.
func (k *Kubelet) CollectImages(ctx context.Context, own func(*runtimeapi.Image) bool) (removed []string, err error) {
	images, listErr := k.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	_, podsErr := k.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	containers, containersErr := k.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err := errors.Join(listErr, podsErr, containersErr); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, container := range containers.GetContainers() {
		used[container.GetImageId()], used[container.GetImageRef()] = true, true
	}
	var problems []error
	for _, image := range images.GetImages() {
		if used[image.GetId()] || image.GetPinned() || !own(image) {
			continue
		}
		_, err := k.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image.GetId()}})
		if err != nil {
			problems = append(problems, fmt.Errorf("remove %s: %w", image.GetId(), err))
			continue
		}
		removed = append(removed, image.GetId())
	}
	return removed, errors.Join(problems...)
}
