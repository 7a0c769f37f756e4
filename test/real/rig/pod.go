package rig

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The labels by which the kubelet finds its pods and containers again.
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"
)

// Pod is a pod sandbox as the kubelet would ask for it: a new uid, the labels
// and annotations that it sets, a folder for logs, and a cgroup of the rig's.
func (r *Rig) Pod(name string) (*runtimeapi.PodSandboxConfig, error) {
	uid := rand.Text()
	logs := filepath.Join(r.Dir, "logs", fmt.Sprintf("default_%s_%s", name, uid))
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: uid},
		Hostname:     name,
		LogDirectory: logs,
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}},
		Labels:       map[string]string{labelPodName: name, labelPodNamespace: "default", labelPodUID: uid},
		Annotations: map[string]string{
			"kubernetes.io/config.source": "api",
			"kubernetes.io/config.seen":   "2026-01-02T03:04:05.000000006Z",
		},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: r.CgroupParent(),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}, nil
}

// Container is a container of the pod as the kubelet would ask for it. Without
// a command it runs the image's own.
func Container(pod *runtimeapi.PodSandboxConfig, name, image string, command ...string) *runtimeapi.ContainerConfig {
	labels := map[string]string{labelContainerName: name}
	for _, key := range []string{labelPodName, labelPodNamespace, labelPodUID} {
		labels[key] = pod.GetLabels()[key]
	}
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image},
		Command:  command,
		Labels:   labels,
		Annotations: map[string]string{
			"io.kubernetes.container.hash":                     "1f3a9c2e",
			"io.kubernetes.container.restartCount":             "0",
			"io.kubernetes.container.terminationMessagePath":   "/dev/termination-log",
			"io.kubernetes.container.terminationMessagePolicy": "File",
			"io.kubernetes.pod.terminationGracePeriod":         "30",
		},
		LogPath: name + "_0.log",
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuShares: 102, MemoryLimitInBytes: 256 << 20},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
}
