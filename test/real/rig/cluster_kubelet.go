package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// logLinks is the folder that every kubelet keeps links to its containers' logs
// in. It cannot be chosen.
const logLinks = "/var/log/containers"

// NodeKubelet is the real kubelet of a cluster, started and ended any number of
// times over one folder.
type NodeKubelet struct {
	Endpoint string // of the runtime, as the next start has it

	cluster *Cluster
	config  string // path
	port    int
	process process
}

func (c *Cluster) newKubelet(ctx context.Context, endpoint string) error {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(ports[0])
	if err != nil {
		return err
	}
	k := &NodeKubelet{cluster: c, config: c.file("kubelet.json"), Endpoint: endpoint, port: port}
	k.process = process{
		name: "kubelet", path: filepath.Join(c.rig.Parts.Kubernetes, "kubelet"), log: filepath.Join(c.rig.Dir, "kubelet.log"), within: controlWithin,
		args: []string{
			"--config", k.config, "--kubeconfig", c.Kubeconfig, "--hostname-override", NodeName, "--v", "2",
			"--root-dir", filepath.Join(c.rig.Dir, "kubelet"), "--cert-dir", c.file(kubeletKeys),
		},
	}
	c.Kubelet = k
	// The folder of its pods is below this one; a container of another user passes.
	c.logDir = exists(logLinks)
	return errors.Join(c.rig.makeCgroups(), c.saveSysctls(),
		os.WriteFile(c.file("resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644))
}

// Start starts it with the feature gates, each "Name", and waits until it answers
// and the API server has the node as ready.
func (k *NodeKubelet) Start(ctx context.Context, gates ...string) error {
	if err := writeJSON(k.config, k.configuration(gates)); err != nil {
		return err
	}
	begin := time.Now()
	return k.process.start(ctx, func(ctx context.Context) error { return k.ready(ctx, begin) })
}

// Stop ends it as systemd would. Its pods live on.
func (k *NodeKubelet) Stop() error { return k.process.stop() }

// Kill ends it with SIGKILL. Its pods live on.
func (k *NodeKubelet) Kill() error { return k.process.kill() }

// Get asks the kubelet itself, as the API server and the metrics server do. The
// API server's own proxy refuses nodes with a loopback address.
func (k *NodeKubelet) Get(ctx context.Context, path string) ([]byte, error) {
	client, err := rest.HTTPClientFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{
		CAFile: filepath.Join(k.cluster.file(kubeletKeys), "kubelet.crt"), CertFile: k.cluster.file(kubeletClient), KeyFile: k.cluster.file(kubeletClient),
	}})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", k.port, path), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the kubelet answers %s to %s: %s", response.Status, path, content)
	}
	return content, errors.Join(err, response.Body.Close())
}

// Log is the end of its log.
func (k *NodeKubelet) Log() string { return k.process.tail() }

// configuration is what the kubelet needs to live beside another one. The
// settings for cgroup v1, for the OOM score and for swap matter only on machines
// that have the first and the last, or forbid the second.
func (k *NodeKubelet) configuration(gates []string) map[string]any {
	c := k.cluster
	enabled := map[string]bool{}
	for _, gate := range gates {
		enabled[gate] = true
	}
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"containerRuntimeEndpoint": k.Endpoint, "featureGates": enabled,
		"address": "127.0.0.1", "port": k.port, "healthzPort": 0, "readOnlyPort": 0,
		"authentication": map[string]any{
			"anonymous": map[string]bool{"enabled": false}, "webhook": map[string]bool{"enabled": false},
			"x509": map[string]string{"clientCAFile": c.file(kubeletClient)},
		},
		"authorization": map[string]string{"mode": "AlwaysAllow"},
		"cgroupDriver":  "cgroupfs", "cgroupRoot": c.rig.CgroupParent(), "cgroupsPerQOS": true, "failCgroupV1": false,
		"enforceNodeAllocatable": []string{}, "oomScoreAdj": 0, "failSwapOn": false,
		// The machine's disk is not the node's business.
		"evictionHard": map[string]string{}, "imageGCHighThresholdPercent": 100,
		"podLogsDir": filepath.Join(c.rig.Dir, "podlogs"), "volumePluginDir": c.file("volumeplugins"),
		"resolvConf": c.file("resolv.conf"), "clusterDNS": []string{"10.96.0.10"}, "clusterDomain": "cluster.local",
		"makeIPTablesUtilChains": false, "serializeImagePulls": false, "registryPullQPS": 0, "eventRecordQPS": 0,
		"nodeStatusUpdateFrequency": "5s",
	}
}

// ready says why the node is not, seen from the API server. What the node said
// before this kubelet's start does not count.
func (k *NodeKubelet) ready(ctx context.Context, begin time.Time) error {
	node, err := k.cluster.Client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		// The API server keeps whole seconds.
		if condition.Status != corev1.ConditionTrue || condition.LastHeartbeatTime.Time.Before(begin.Truncate(time.Second)) {
			return fmt.Errorf("the node is not ready yet: %s", condition.Message)
		}
		_, err := k.Get(ctx, "/healthz")
		return err
	}
	return errors.New("the node does not say whether it is ready")
}

// makeCgroups makes the group that the kubelet's own are below. It is empty and
// has all that the machine has.
func (r *Rig) makeCgroups() error {
	if exists("/sys/fs/cgroup/cgroup.controllers") {
		return os.Mkdir(filepath.Join("/sys/fs/cgroup", r.CgroupParent()), 0o755)
	}
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		return err
	}
	var problems []error
	for _, file := range hierarchies {
		group := filepath.Join(filepath.Dir(file), r.CgroupParent())
		problems = append(problems, os.MkdirAll(group, 0o755)) // Two names may mean one hierarchy.
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			problems = append(problems, copyUp(group, name))
		}
	}
	return errors.Join(problems...)
}

// copyUp gives a group what its parent has, where it has it.
func copyUp(group, name string) error {
	content, err := os.ReadFile(filepath.Join(filepath.Dir(group), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, os.WriteFile(filepath.Join(group, name), content, 0o644))
}

// saveSysctls remembers the settings of the machine that a kubelet changes.
func (c *Cluster) saveSysctls() error {
	c.sysctls = map[string][]byte{}
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		file := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		c.sysctls[file] = value
	}
	return nil
}

func (c *Cluster) restoreSysctls() error {
	var problems []error
	for file, value := range c.sysctls {
		problems = append(problems, os.WriteFile(file, value, 0o644))
	}
	return errors.Join(problems...)
}

// removeLogLinks removes the links to the logs of the rig's containers.
func (r *Rig) removeLogLinks() error {
	links, err := r.logLinks()
	problems := []error{err}
	for _, link := range links {
		problems = append(problems, os.Remove(link))
	}
	return errors.Join(problems...)
}

func (r *Rig) logLinks() (own []string, err error) {
	links, err := filepath.Glob(logLinks + "/*.log")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, r.Dir+"/") {
			own = append(own, link)
		}
	}
	return own, err
}

// removeLogDir removes the folder of the links where the kubelet made it.
func (c *Cluster) removeLogDir() error {
	if err := c.rig.removeLogLinks(); err != nil || c.logDir {
		return err
	}
	if err := os.Remove(logLinks); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
