// Package journal keeps on disk what was promised about hooks: one record per
// container, event and hook, and per container what must be known until it is
// gone, an accepted stop above all.
//
// A record goes one way:
//
//	          ┌──────────────────────────────┬─────────┐
//	          │                              ▼         ▼
//	(new) ─▶ pending ─▶ running ─┬─▶ moot  skipped   (dropped)
//	          ▲           │  ▲   ├─▶ delivered
//	          │           └──┘   ├─▶ skipped
//	          │   next attempt   └─▶ failed ──┐
//	          └───────────────────────────────┘
//	                 an operator's retry
//
// pending is promised; running was tried at least once, or was about to be;
// delivered and failed tell how it ended; skipped had no time left to be tried;
// moot has lost its reason: the container is gone, exited by itself, or never
// started. A step may be left out, since the disk may not have taken it. What is
// pending or running when the process ends is delivered by the next one, under
// the same id.
//
// It survives kill -9 and a power failure at any instant: what Update returned
// nil for is on disk, whole, and an Update that failed has written all or
// nothing. A commit that wrote and still reports an error, a disk that is full
// or read-only, and a reboot (deadlines carry the boot id) are survived as well.
// Records of a version that this program does not know are kept as they are.
//
// It does not survive the loss of the state file, nor a damage that makes
// package state set the file aside: those promises are lost, and the next
// process does not know of them. It does not notice a changed byte inside of a
// record that still reads as one.
//
// A record holds the hook's definition, since the configuration or the pod may
// be another by the time of the delivery. That includes the values of its HTTP
// headers, which may be secrets of the operator or of the pod's author: the file
// has mode 0600, and whoever logs or shows a record leaves them out. Output of
// hooks is never in it.
//
// Finished records are kept for a day, the newest 10,000 of them, and are
// removed in the same commits that finish others. The wall clock decides: where
// it was set back, they are kept for longer. Open ones and those of another
// version are never removed, and containers only when the caller forgets them.
package journal
