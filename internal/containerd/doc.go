// Package containerd is containerd's own API on the socket of a backend, for
// what CRI cannot say of images: whether one is unpacked in a given snapshotter,
// how far a pull is, and the way from one store to another.
//
// Guaranteed: nothing is remembered, containerd is asked each time. Whatever is
// made is under a lease until it is complete, so that the garbage collector
// leaves it alone, and is collected when the work fails or its caller leaves.
// Errors are gRPC status errors with containerd's own code and message;
// Unimplemented means that there is no containerd behind the socket.
//
// Not guaranteed: that an image which was there still is; containerd, its CRI
// and other clients go on meanwhile.
//
// It is built on containerd's small client packages and not on its one large
// client, which knows tasks, containers and OCI specs too: that one costs three
// times the binary and the memory.
package containerd
