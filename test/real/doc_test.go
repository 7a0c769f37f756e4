// Package real_test drives a real node, two containerds in a temporary folder,
// with crictl: once each containerd alone, once both behind cri-proxy. What
// holds directly must hold through the proxy. It needs root.
package real_test
