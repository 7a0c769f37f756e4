// Package install puts cri-proxy between the kubelet of a node and its runtime,
// and takes it away again.
//
// It guarantees that
//   - before anything is changed, what will be changed is on disk with a copy of
//     every file as it was, so that even a killed installation can be undone;
//   - the kubelet is led to the proxy only after CRI was answered through it;
//   - what fails, or is interrupted, is undone by itself: files to the byte, mode
//     and owner, the kubelet back on its runtime;
//   - a configuration that is there is never overwritten, and of the kubelet's
//     files only the endpoints are changed;
//   - no container is stopped: only the kubelet and the proxy are restarted.
//
// It does not install the program itself, it does not touch the runtimes, and it
// knows systemd only.
package install
