// Package handlers answers the kubelet's RuntimeService.
//
// Each RPC takes one of three ways. Most have the id of a sandbox or container
// in field 1 and go as they came to the backend that owns it; what this program
// must look into or change has a file of its own here; and what concerns the
// whole node, lists above all, is asked of all backends and answered as one.
//
// Guaranteed: a list is whole or it is an error; a create is sent once, and to
// one backend; the answer of a single backend arrives byte for byte; with one
// backend configured every call is just passed on, but for what a handler's
// name, a hook or the Service variables require.
//
// Not guaranteed: anything about images, which have a package of their own.
package handlers
