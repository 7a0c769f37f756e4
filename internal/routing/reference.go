package routing

import (
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Reference returns an image name in its one normal form, registry and tag
// added as the kubelet and containerd add them, so that the names in a pod and
// in the calls made for it compare equal. An image id, and what is no
// reference, stays as it is.
func Reference(image string) string {
	if digest.Digest(image).Validate() == nil {
		return image
	}
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return image
	}
	return named.String()
}
