// Package backend is the proxy's way to the container runtimes.
//
// A [Backend] is one upstream: its connections, whether it answers, and what it
// said about itself. The [Set] of them watches each, lists a backend anew
// whenever it comes (back), so that routing knows its ids, and finds the owner
// of an id that routing does not know by asking.
//
// Guaranteed: calls go to exactly one backend and are sent at most once; a
// status comes back as the runtime gave it, and where there was no runtime to
// give one, the error names the backend and its socket. A backend that does not
// answer holds up nothing but calls that need it.
//
// Not guaranteed: that a backend which is up stays so; and with a single
// backend nothing is asked or judged, calls just pass.
package backend
