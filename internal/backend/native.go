package backend

import "github.com/cri-proxy/cri-proxy/internal/containerd"

// Containerd returns containerd's own API on the socket of the backend's
// ImageService. Whether there is a containerd behind it, the first call says.
func (b *Backend) Containerd() *containerd.Store { return containerd.New(b.images) }
