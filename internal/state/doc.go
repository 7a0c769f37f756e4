// Package state owns the one file in which cri-proxy keeps what must survive
// the process: <dir>/state.db, a bbolt database that is opened once.
//
// It guarantees that
//   - only one process has the file open: a second one gets ErrLocked instead
//     of waiting for ever;
//   - what an Update returned nil for is on disk, also after a power failure
//     (bbolt flushes the data and then the meta page, two fdatasyncs a commit,
//     and Open flushes the directory that a new file was created in);
//   - a damaged file never stops or crashes the daemon. Its structure is
//     verified under the lock before bbolt sees it, because bbolt maps the file
//     and panics, faults or loops on pages that make no sense. A damaged file is
//     renamed, never deleted, and an empty one takes its place.
//
// It does not notice a change inside a value: bbolt has no checksum over its
// data pages. It does not survive somebody else truncating the file while it is
// open. It knows nothing of the records; each room has its own buckets.
package state
