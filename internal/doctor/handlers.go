package doctor

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/cri-proxy/cri-proxy/configs"
)

func (n *node) checkHandlers() {
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Handlers)) {
		n.checkHandler(name, n.cfg.Handlers[name])
	}
}

func (n *node) checkHandler(name string, h configs.Handler) {
	c := n.about("handler", name)
	r, wanted := n.runtime(h.Backend), h.RuntimeName(name)
	if r.err != nil {
		c.skip("backend %s cannot be asked", h.Backend)
		return
	}
	if wanted == "" {
		c.ok("the default runtime of backend %s", h.Backend)
		return
	}
	known := r.runtimes()
	switch {
	case slices.Contains(known, wanted):
		c.ok("runtime %s of backend %s", wanted, h.Backend)
	case len(known) == 0:
		c.skip("backend %s does not tell its runtimes, so whether it knows %q shows with the first pod", h.Backend, wanted)
	default:
		c.problem("add it to that runtime's configuration and restart it, or name another one in handlers."+name+".runtime",
			"backend %s knows no runtime %q, only %s", h.Backend, wanted, strings.Join(known, ", "))
	}
}

// checkCgroupDrivers: the kubelet builds one hierarchy, by the default backend's
// word or else its own configuration.
func (n *node) checkCgroupDrivers() {
	standard := n.backends[0]
	wanted, from := standard.driver, "the default backend "+standard.name
	if own := n.kubelet.CgroupDriver; wanted == "" && standard.err == nil {
		wanted, from = own.Text, own.From
	}
	for _, r := range n.backends {
		c := n.about("cgroup-driver", r.name)
		switch {
		case r.err != nil:
			c.skip("backend %s cannot be asked", r.name)
		case r.driverOf != nil:
			c.problem("see that runtime's log: a kubelet that starts with this ends", "RuntimeConfig: %v", r.driverOf)
		case r.driver == "":
			c.skip("it does not tell (containerd does since 2.0); the kubelet then uses its own cgroupDriver, and this runtime has to have the same")
		case wanted != "" && r.driver != wanted:
			c.problem("give both the same driver: SystemdCgroup in containerd's runtime options, cgroup_manager in CRI-O; until then it gets no pods",
				"%s, but %s uses %s", r.driver, from, wanted)
		default:
			c.ok("%s", r.driver)
		}
	}
	n.checkKubeletDriver(standard)
}

func (n *node) checkKubeletDriver(standard *runtime) {
	own := n.kubelet.CgroupDriver
	if own.Text == "" || standard.driver == "" || own.Text == standard.driver {
		return
	}
	n.about("cgroup-driver", "kubelet").warn("write cgroupDriver: "+standard.driver+" there",
		"%s says %s, which the kubelet overrules by the runtime's %s; an older kubelet, or a runtime that does not tell, would not", own.From, own.Text, standard.driver)
}

// checkCNI compares the containerds that tell their configuration.
func (n *node) checkCNI() {
	c := n.about("cni", "")
	byDir, byRoot := map[string][]*runtime{}, map[string][]*runtime{}
	told := 0
	for _, r := range n.backends {
		if r.containerd != nil {
			told++
			byDir[r.containerd.CNI.ConfDir] = append(byDir[r.containerd.CNI.ConfDir], r)
			byRoot[r.containerd.RootDir] = append(byRoot[r.containerd.RootDir], r)
		}
	}
	if told < 2 {
		c.skip("fewer than two containerds tell their configuration, so there is nothing to compare")
		return
	}
	for _, dir := range slices.Sorted(maps.Keys(byRoot)) {
		if dir != "" && len(byRoot[dir]) > 1 {
			c.problem("give each its own root and state", "%s have one root directory, %s", names(byRoot[dir]), dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		n.checkNetworks(dir, byDir[dir])
	}
}

func (n *node) checkNetworks(dir string, shared []*runtime) {
	c := n.about("cni", dir)
	templates := slices.DeleteFunc(slices.Clone(shared), func(r *runtime) bool { return r.containerd.CNI.ConfTemplate == "" })
	switch {
	case len(shared) > 1 && len(templates) > 0:
		c.warn("set cni.conf_template in none of them, or give each its own cni.conf_dir",
			"%s share it, and %s would write their own network into it from conf_template", names(shared), names(templates))
	case len(shared) > 1:
		c.ok("shared by %s: their pods are in one network", names(shared))
	default:
		c.ok("used by %s alone", names(shared))
	}
}

func names(runtimes []*runtime) string {
	var all []string
	for _, r := range runtimes {
		all = append(all, r.name)
	}
	return strings.Join(all, " and ")
}

func (n *node) checkRuntimeClasses(ctx context.Context) {
	c := n.about("runtime-class", "")
	if n.cfg.Kubernetes.Kubeconfig == "" || n.RuntimeClasses == nil {
		c.skip("no API server is configured in [kubernetes].kubeconfig")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	classes, err := n.RuntimeClasses(ctx, n.cfg)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.skip("%v", err)
		return
	case err != nil:
		c.warn("see that the kubeconfig is right and the API server runs", "the RuntimeClasses cannot be listed: %v", err)
		return
	}
	named := map[string]bool{}
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		handler := classes[class]
		named[handler] = true
		if _, ok := n.cfg.Handlers[handler]; ok {
			n.about("runtime-class", class).ok("handler %s", handler)
			continue
		}
		n.about("runtime-class", class).warn("add handlers."+handler+" here, or keep its pods off this node by scheduling.nodeSelector",
			"its handler %q is not configured, so its pods fail on this node", handler)
	}
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Handlers)) {
		if !named[name] && name != n.cfg.DefaultHandler {
			n.about("runtime-class", "").warn("create a RuntimeClass with handler: "+name, "no RuntimeClass names handler %s, so no pod can ask for it", name)
		}
	}
}
