package doctor_test

import (
	"errors"
	"fmt"
	"io/fs"
)

func kubeletFaults() []fault {
	const config = "/var/lib/kubelet/config.yaml"
	proc := func(more string) func(p *planted) {
		return func(p *planted) { p.edit("/proc/12/cmdline", "--node-ip=10.0.0.1\x00", more) }
	}
	return []fault{
		{
			"the kubelet goes to a backend", func(p *planted) { p.edit(config, "/run/cri-proxy/cri-proxy.sock", "/run/containerd/containerd.sock") },
			[]string{"problem kubelet-endpoint"},
			"backend containerd itself",
		},
		{
			"the kubelet goes somewhere else", func(p *planted) { p.edit(config, "/run/cri-proxy/cri-proxy.sock", "/run/x.sock") },
			[]string{"problem kubelet-endpoint"},
			config + " says unix:///run/x.sock",
		},
		{
			"the kubelet is told nothing", func(p *planted) { p.edit(config, "containerRuntimeEndpoint", "# containerRuntimeEndpoint") },
			[]string{"problem kubelet-endpoint"},
			"the kubelet's default",
		},
		{
			"a flag overrules the kubelet's configuration", proc("--container-runtime-endpoint=unix:///run/containerd/containerd.sock\x00"),
			[]string{"problem kubelet-endpoint"},
			"the command line of process 12",
		},
		{
			"images go past the proxy", proc("--image-service-endpoint\x00unix:///run/containerd/containerd.sock\x00"),
			[]string{"problem kubelet-image-endpoint"},
			"backend containerd itself",
		},
		{
			"a drop-in overrules the kubelet's configuration", func(p *planted) {
				proc("--config-dir=/etc/kubelet.d\x00")(p)
				p.write("/etc/kubelet.d/10-cri.conf", "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
			},
			[]string{"problem kubelet-endpoint"},
			"/etc/kubelet.d/10-cri.conf",
		},
		{
			"kubeadm's flags, and no kubelet running", func(p *planted) {
				p.remove("/proc/12")
				p.edit("/var/lib/kubelet/kubeadm-flags.env", "--node-ip=10.0.0.1", "--container-runtime-endpoint=/run/containerd/containerd.sock --node-ip=10.0.0.1")
			},
			[]string{"problem kubelet-endpoint"},
			"kubeadm-flags.env",
		},
		{
			"kubeadm upgrade would lead away", func(p *planted) {
				p.edit("/var/lib/kubelet/instance-config.yaml", "/run/cri-proxy/cri-proxy.sock", "/run/containerd/containerd.sock")
			},
			[]string{"warning kubelet-endpoint instance-config.yaml"},
			"kubeadm upgrade",
		},
		{
			"the kubelet's configuration is no YAML", func(p *planted) { p.write(config, "{") },
			[]string{"problem kubelet-endpoint"},
			config,
		},
		{
			"the kubelet's cgroup driver is overruled", func(p *planted) { p.edit(config, "systemd", "cgroupfs") },
			[]string{"warning cgroup-driver kubelet"},
			"overrules",
		},
		{
			"no kubelet", func(p *planted) { p.remove("/proc/12"); p.remove("/var/lib/kubelet") },
			[]string{"skipped kubelet-endpoint"},
			"no kubelet",
		},
	}
}

func fileFaults() []fault {
	return []fault{
		{
			"a CRI socket that everybody may use", func(p *planted) { p.chmod("/run/cri-proxy/cri-proxy.sock", 0o666) },
			[]string{"problem socket server.listen"},
			"everybody on the node can run anything as root",
		},
		{
			"an admin socket for a group", func(p *planted) { p.chmod("/run/cri-proxy/admin.sock", 0o660) },
			[]string{"warning socket admin.listen"},
			"0600 is enough",
		},
		{
			"a backend's socket that everybody may use", func(p *planted) { p.chmod("/run/sandboxed/containerd.sock", 0o777) },
			[]string{"problem socket backends.sandboxed.endpoint"},
			"mode 0777",
		},
		{
			"the state directory is gone", func(p *planted) { p.remove("/var/lib/cri-proxy") },
			[]string{"problem state /var/lib/cri-proxy"},
			"is gone",
		},
		{
			"a state directory that everybody may write to", func(p *planted) { p.chmod("/var/lib/cri-proxy", 0o777) },
			[]string{"warning state /var/lib/cri-proxy"},
			"0777",
		},
		{
			"a damaged state file", func(p *planted) { p.write("/var/lib/cri-proxy/state.db.corrupt-2", "") },
			[]string{"warning state /var/lib/cri-proxy"},
			"state.db.corrupt-2",
		},
		{
			"little room for the state", func(p *planted) { p.free = 150 << 20 },
			[]string{"warning state /var/lib/cri-proxy"},
			"only 150 MiB",
		},
		{
			"no room for the state", func(p *planted) { p.free = 1 << 20 },
			[]string{"problem state /var/lib/cri-proxy"},
			"1 MiB are free",
		},
		{
			"a file with credentials is gone", func(p *planted) { p.remove("/etc/cri-proxy/auth.json") },
			[]string{"problem file handlers.gvisor.images.auth_files"},
			"auth.json",
		},
		{
			"a file with credentials that everybody may read", func(p *planted) { p.chmod("/etc/cri-proxy/auth.json", 0o644) },
			[]string{"warning file handlers.gvisor.images.auth_files"},
			"everybody on the node can read",
		},
		{
			"a unit that does not start at boot", func(p *planted) { p.remove("/etc/systemd/system/multi-user.target.wants") },
			[]string{"problem unit cri-proxy.service"},
			"not enabled",
		},
		{
			"crictl sees one runtime", func(p *planted) {
				p.edit("/etc/crictl.yaml", "/run/cri-proxy/cri-proxy.sock", "/run/containerd/containerd.sock")
			},
			[]string{"warning cri-client crictl"},
			"sees one runtime's pods only",
		},
		{
			"an agent on a backend", func(p *planted) {
				p.sockets += "u_str ESTAB 0 0 /run/sandboxed/containerd.sock 200 * 201 users:((\"containerd\",pid=5,fd=2))\nu_str ESTAB 0 0 * 201 * 200 users:((\"agent\",pid=99,fd=2))\n"
			},
			[]string{"warning cri-client sandboxed"},
			"agent",
		},
		{
			"a connection whose process is hidden", func(p *planted) {
				p.sockets += "u_str ESTAB 0 0 /run/sandboxed/containerd.sock 200 * 201\nu_str ESTAB 0 0 * 201 * 200\n"
			},
			[]string{"skipped cri-client sandboxed"},
			"only root can see",
		},
		{
			"no ss", func(p *planted) { p.socketErr = errors.New("there is no ss") },
			[]string{"skipped cri-client"},
			"there is no ss",
		},
	}
}

func clusterFaults() []fault {
	return []fault{
		{
			"a RuntimeClass that this node does not have", func(p *planted) { p.classes["kata"] = "kata" },
			[]string{"warning runtime-class kata"},
			`handler "kata" is not configured`,
		},
		{
			"a handler that nobody can name", func(p *planted) { delete(p.classes, "sandbox") },
			[]string{"warning runtime-class"},
			"no RuntimeClass names handler gvisor",
		},
		{
			"the API server is away", func(p *planted) { p.classErr = errors.New("connection refused") },
			[]string{"warning runtime-class"},
			"connection refused",
		},
		{
			"RuntimeClasses may not be listed", func(p *planted) { p.classErr = fmt.Errorf("its user may not (%w)", fs.ErrPermission) },
			[]string{"skipped runtime-class"},
			"may not",
		},
	}
}
