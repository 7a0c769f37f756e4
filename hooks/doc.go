// Package hooks runs what the node's operator, or a pod where that is allowed,
// wants to happen after a container has started and before it is stopped.
//
// Guaranteed, for a handler that has hooks:
//   - a hook is on disk before the container is started or the stop begun, and is
//     delivered at least once, under one delivery id, across kill -9 of this program;
//   - a container has one stop at a time, with one deadline, which every further
//     call may move to an earlier time and none to a later one. Hooks get what is
//     left of it, the runtime the rest, at least two seconds unless less was
//     asked for. A stop that was accepted is brought to its end by this program,
//     even if its caller has gone or this program was restarted in between;
//   - a hook that fails, and a disk that takes nothing, never keep a container
//     from being stopped. A hook that cannot be recorded keeps it from being started.
//
// Not guaranteed: exactly one delivery (a receiver tells repeats by their id); a
// PreStop for a container that ended by itself, or was killed by somebody who
// went past this program; that a PreStop is begun again once its grace period is
// over.
//
// It costs nothing for handlers without hooks: [Engine.Has] says so, and their
// calls are not to come here.
package hooks
