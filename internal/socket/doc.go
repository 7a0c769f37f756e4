// Package socket listens on unix sockets that belong to cri-proxy.
//
// It guarantees that a socket which another process serves is never taken away,
// that one left behind by a dead process is replaced, that nobody can connect
// with wider permissions than asked, not even for an instant, and that closing
// removes the socket only if it is still ours.
//
// A socket inherited from systemd needs none of this: it is there before us and
// stays after us.
//
// It does not guard against somebody who may write to the socket's directory,
// and it does not serve.
package socket
