package fakeruntime

import (
	"fmt"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Fill adds pods ready sandboxes with containersPerPod running containers each, with the labels and annotations that a
// kubelet writes: about 1 KB a container in a list. Filling again adds more pods.
func (r *Runtime) Fill(pods, containersPerPod int) { r.FillHandler("", pods, containersPerPod) }

// FillHandler is Fill with pods of a RuntimeClass, whose handler is not checked against Options.Runtimes.
func (r *Runtime) FillHandler(handler string, pods, containersPerPod int) {
	for range pods {
		pod := newPod()
		id := r.AddSandbox(Sandbox{ID: pod.id, Config: pod.sandboxConfig(), Handler: handler})
		for n := range containersPerPod {
			r.AddContainer(Container{
				SandboxID: id,
				Config:    pod.containerConfig(n),
				State:     runtimeapi.ContainerState_CONTAINER_RUNNING,
			})
		}
	}
}

// pod is one made-up pod of a Deployment.
type pod struct {
	id, uid, name, namespace string
}

func newPod() pod {
	id := newID()
	return pod{
		id:        id,
		uid:       fmt.Sprintf("%s-%s-%s-%s-%s", id[:8], id[8:12], id[12:16], id[16:20], id[20:32]),
		name:      "checkout-frontend-" + id[:10] + "-" + id[10:15],
		namespace: "team-shop-production",
	}
}

func (p pod) sandboxConfig() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.name, Uid: p.uid, Namespace: p.namespace},
		Hostname:     p.name,
		LogDirectory: "/var/log/pods/" + p.namespace + "_" + p.name + "_" + p.uid,
		Labels: p.labels(map[string]string{
			"app.kubernetes.io/name":    "checkout-frontend",
			"app.kubernetes.io/version": "2.31.4",
			"pod-template-hash":         p.id[:10],
		}),
		Annotations: map[string]string{
			"kubernetes.io/config.seen":   "2026-11-02T09:14:07.318275331Z",
			"kubernetes.io/config.source": "api",
			"prometheus.io/port":          "9090",
			"prometheus.io/scrape":        "true",
		},
	}
}

func (p pod) containerConfig(n int) *runtimeapi.ContainerConfig {
	name := "service-" + strconv.Itoa(n)
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image: &runtimeapi.ImageSpec{
			Image:              "registry.example.com/shop/" + name + ":2.31.4",
			UserSpecifiedImage: "registry.example.com/shop/" + name + ":2.31.4",
		},
		Labels: p.labels(map[string]string{"io.kubernetes.container.name": name}),
		Annotations: map[string]string{
			"io.kubernetes.container.hash":                     p.id[:8],
			"io.kubernetes.container.ports":                    `[{"name":"http","containerPort":8080,"protocol":"TCP"}]`,
			"io.kubernetes.container.preStopHandler":           `{"exec":{"command":["/bin/sh","-c","sleep 5"]}}`,
			"io.kubernetes.container.restartCount":             "0",
			"io.kubernetes.container.terminationMessagePath":   "/dev/termination-log",
			"io.kubernetes.container.terminationMessagePolicy": "File",
			"io.kubernetes.pod.terminationGracePeriod":         "30",
		},
		LogPath: name + "/0.log",
	}
}

// labels adds those that the kubelet joins pods and containers by.
func (p pod) labels(labels map[string]string) map[string]string {
	labels["io.kubernetes.pod.name"] = p.name
	labels["io.kubernetes.pod.namespace"] = p.namespace
	labels["io.kubernetes.pod.uid"] = p.uid
	return labels
}
