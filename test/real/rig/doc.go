// Package rig runs a real node in one temporary folder: containerds, runc, CNI
// and image registries, with and without a password, all built from pinned Go
// modules, and the cri-proxy binary in front of them, driven with crictl, with the
// calls of a kubelet, or with a real kubelet and the control plane above it.
//
// Any number of containerds live side by side; each has its own root, state,
// sockets, bridge, subnet and registry settings, and nothing of the machine's
// own containerd is used or touched. What a rig starts it ends by the process
// id it got at the start, and Close leaves nothing behind: no process, mount,
// network namespace, bridge, cgroup or file. The one trace is that of every CNI
// bridge: IPv4 forwarding stays switched on. A kubelet also changes settings of
// the kernel; they are put back, but not after a rig that was killed.
//
// It needs root on Linux and what test/real/deps.sh installs. It does not
// fetch anything but Go modules, and it knows the proxy by its binary and the
// wire only.
package rig
