package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/kubelet"
)

func (n *node) checkKubelet() {
	c := n.about("kubelet-endpoint", "")
	if errors.Is(n.kubeletErr, fs.ErrPermission) {
		c.skip("%v: run this as root", n.kubeletErr)
		return
	}
	if n.kubeletErr != nil {
		c.problem("correct that file", "%v", n.kubeletErr)
		return
	}
	s := n.kubelet
	if !s.Found {
		c.skip("no kubelet runs here, and there is no %s", kubelet.ConfigFile)
		return
	}
	if s.Endpoint.Text == "" {
		s.Endpoint = kubelet.Value{Text: kubelet.DefaultEndpoint, From: "the kubelet's default"}
	}
	n.checkEndpoint("kubelet-endpoint", s.Endpoint, "containerRuntimeEndpoint")
	if s.ImageEndpoint.Text != "" {
		n.checkEndpoint("kubelet-image-endpoint", s.ImageEndpoint, "imageServiceEndpoint")
	}
	n.checkInstanceConfig()
}

// checkEndpoint judges where the kubelet connects to.
func (n *node) checkEndpoint(name string, v kubelet.Value, key string) {
	c := n.about(name, "")
	if same(v.Text, n.cfg.Server.Listen) {
		c.ok("%s says %s", v.From, v.Text)
		return
	}
	next := "write " + key + ": " + n.cfg.Server.Listen + " there and restart the kubelet, or let cri-proxy install do it"
	for _, r := range n.backends {
		if same(v.Text, r.cfg.Endpoint) || same(v.Text, r.cfg.Images()) {
			c.problem(next, "%s says %s, which is the backend %s itself: the kubelet goes past cri-proxy", v.From, v.Text, r.name)
			return
		}
	}
	c.problem(next, "%s says %s, and cri-proxy listens on %s", v.From, v.Text, n.cfg.Server.Listen)
}

func same(a, b string) bool {
	left, err := configs.SocketPath(a)
	right, otherErr := configs.SocketPath(b)
	return err == nil && otherErr == nil && left == right
}

// checkInstanceConfig: kubeadm writes its endpoint into config.yaml when it upgrades.
func (n *node) checkInstanceConfig() {
	text, err := os.ReadFile(n.path(kubelet.InstanceConfigFile))
	if err != nil {
		return // Older kubeadms have none.
	}
	c := n.about("kubelet-endpoint", "instance-config.yaml")
	var instance struct {
		Endpoint string `json:"containerRuntimeEndpoint"`
	}
	switch err := yaml.Unmarshal(text, &instance); {
	case err != nil:
		c.warn("correct it", "%s: %v", kubelet.InstanceConfigFile, err)
	case instance.Endpoint != "" && !same(instance.Endpoint, n.cfg.Server.Listen):
		c.warn("write containerRuntimeEndpoint: "+n.cfg.Server.Listen+" there", "%s says %s: kubeadm upgrade would lead the kubelet there", filepath.Base(kubelet.InstanceConfigFile), instance.Endpoint)
	default:
		c.ok("%s agrees", kubelet.InstanceConfigFile)
	}
}
