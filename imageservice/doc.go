// Package imageservice answers the kubelet's ImageService, so that each handler
// has its own images.
//
// A kubelet asks about images as if the node had one store, and says nothing of
// the handler unless its gate RuntimeClassInImageCriApi (KEP-4216) is on. Here
// every call is led to the stores that it can only mean: those of the pods it is
// made for. A store is one backend's ImageService.
//
// Guaranteed: an image is reported present only if it is so in every store that
// is meant; "not found" is never said for a store that could not be asked; a
// container whose image is missing in its own store gets it pulled there before
// it is created. No pull and no container gets past its handler's rules. Equal
// pulls are one; a pull goes on as long as somebody waits for it, and no longer.
// Pull credentials pass through memory and nowhere else.
//
// Not guaranteed: that a call without a pod (crictl) means what its user
// thinks: such a pull goes to the default handler's store. What pods have pulled
// under the policy "always" does not outlive the process; the kubelet pulls
// again.
package imageservice
