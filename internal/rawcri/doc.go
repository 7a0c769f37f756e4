// Package rawcri carries CRI messages through the proxy without decoding
// them.
//
// A [Frame] is one message as it came off the wire. The server hands every
// RPC, known to this program or not, to one handler per gRPC service as a
// [Call]: the request frame, what the CRI descriptors tell about the method
// and the way back to the caller. [Forward] sends the frame to an upstream and
// returns headers, frames, trailers and status as they are. Where a list of
// several upstreams becomes one, [Merge] joins frames on the wire; where a
// handler name must change, [Plan] rewrites it on the wire.
//
// Guaranteed: a frame that is not rewritten leaves with the bytes it came
// with, unknown fields included; the caller's deadline, cancellation and
// metadata reach the upstream; one RPC is one Call. Nothing here allocates per
// list item.
//
// Not guaranteed: that a forwarded frame is a valid message. What the proxy
// need not read it does not check; that is the upstream's to say.
package rawcri
