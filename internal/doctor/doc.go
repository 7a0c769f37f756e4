// Package doctor examines a node: whether the configuration, the runtimes, the
// kubelet and the running proxy fit together.
//
// It guarantees that every finding says what was looked at, the verdict, the reason
// and, where something is wrong, the next step; that what could not be looked at is
// a finding too, with its reason, and never silently fine; and that it changes
// nothing: it reads files, connects to sockets and makes calls that only ask.
//
// It sees one moment. It does not try a pod, it cannot see what a runtime does not
// tell about itself, and without root much is skipped.
package doctor
