package rig

import "text/template"

// containerdConfig is what containerd 2.x needs to live beside another one. The
// first two settings matter only on machines where a process may not lower its
// oom_score_adj; the plugins left out need devices or programs of their own.
func containerdConfig() *template.Template {
	return template.Must(template.New("config.toml").Parse(`version = 3
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = [
  "io.containerd.nri.v1.nri",{{if not .Collector}} "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",{{end}}
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs",
]

[grpc]
address = "{{.Socket}}"

[ttrpc]
address = "{{.Dir}}/t.sock"

[plugins.'io.containerd.internal.v1.opt']
path = "{{.Dir}}/opt"

[plugins.'io.containerd.shim.v1.manager']
socket_dir = "{{.Dir}}/s"

[plugins.'io.containerd.cri.v1.images']
{{with .PullTimeout}}image_pull_progress_timeout = "{{.}}"{{end}}
use_local_image_pull = {{ne .PullTimeout ""}}
discard_unpacked_layers = {{.DiscardLayers}}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{{.Pause}}"

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{{.Dir}}/certs.d"

[plugins.'io.containerd.transfer.v1.local']
unpack_config = [{ platform = "{{.Platform}}", snapshotter = "overlayfs" },
{{range .Snapshotters}}  { platform = "{{$.Platform}}", snapshotter = "{{.}}" },{{end}}]

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cdi_spec_dirs = []

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{{.CNI}}"]
conf_dir = "{{.Dir}}/cni"
use_internal_loopback = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{{.Shim}}/containerd-shim-runc-v2"
options = { BinaryName = "{{.Runc}}/runc", Root = "{{.Dir}}/runc" }
{{range .Handlers}}
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{{.}}]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{{$.Shim}}/containerd-shim-runc-v2"
base_runtime_spec = "{{$.Dir}}/{{.}}.json"
{{with index $.Snapshotters .}}snapshotter = "{{.}}"{{end}}
options = { BinaryName = "{{$.Runc}}/runc", Root = "{{$.Dir}}/runc-{{.}}" }
{{end}}`))
}

// containerd17Config says the same to containerd 1.7. Its shims listen in
// /run/containerd/s, a folder that cannot be chosen, under names that differ
// from those of any other containerd.
func containerd17Config() *template.Template {
	return template.Must(template.New("config.toml").Parse(`version = 2
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
]

[grpc]
address = "{{.Socket}}"

[ttrpc]
address = "{{.Dir}}/t.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{{.Dir}}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{{.Pause}}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cdi_spec_dirs = []

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{{.Dir}}/certs.d"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{{.CNI}}"
conf_dir = "{{.Dir}}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{{.Shim}}/containerd-shim-runc-v2"
options = { BinaryName = "{{.Runc}}/runc", Root = "{{.Dir}}/runc" }
{{range .Handlers}}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{{.}}]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{{$.Shim}}/containerd-shim-runc-v2"
base_runtime_spec = "{{$.Dir}}/{{.}}.json"
options = { BinaryName = "{{$.Runc}}/runc", Root = "{{$.Dir}}/runc-{{.}}" }
{{end}}`))
}
