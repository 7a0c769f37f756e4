// Package routing answers the question whose a call is, from plain records.
//
// [Table] is the configuration's part: which backend and which of its
// runtimes stands behind a RuntimeClass handler, and which handler a runtime's
// name means on the way back. [Index] is what was learnt: which backend owns a
// sandbox or container id, and what image calls need to know of a sandbox.
//
// Guaranteed: pure and safe for concurrent use; no call blocks on anything but
// a short mutex; ids are kept as the runtimes made them. A look-up by id
// allocates nothing.
//
// Not guaranteed: that the index is complete. It starts empty, is filled from
// lists and replies, and a miss means "ask the backends", never "unknown".
package routing
