// Package admin is the daemon's second door: an HTTP server on a unix socket
// that only its owner may open, with health (/livez, /readyz), /metrics,
// /debug/pprof and whatever subtree a room adds by Handle, and the small client
// that the commands use to ask a running daemon. Metrics alone can be served on
// a TCP address as well.
//
// It guarantees that nothing but /metrics leaves the node, that a socket which
// another daemon serves is not taken away, and that Run ends within the shutdown
// time-out. It does not authenticate: the mode of the socket does. It knows
// nothing of what the rooms show.
package admin
