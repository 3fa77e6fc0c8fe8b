// Package mpool is a pool: drives, the objects on them, and the metadata that
// says which objects there are. It implements api.Pool in process, for programs
// that own their drives; the daemon is one of those.
//
// # On media
//
// A drive begins with its superblocks' area, which on the metadata drive also
// holds the two logs of the metadata container; then come zones to the end,
// where the last superblock copy is. See package omf for the bytes.
//
// The metadata log holds transactions. [Activate] replays it into the layout
// table and the space maps; nothing else says what a pool holds.
//
// # Several drives
//
// One drive of the class capacity, the first, has the metadata. What the pool
// as a whole is (its name, its drives, whether it is destroyed, its epoch) is
// in the superblock, on every drive, and is so when it is durable on the
// metadata drive; the others follow. An object, and a container, lies on one
// drive. A drive that fails writes is avoided and degrades the pool; one that
// hangs holds up whoever needs it, and nobody else: each drive has a drainer, a
// background and a mirror of the superblock of its own, and no lock or gate of
// the pool is held across the I/O of any drive but the metadata drive.
//
// # Invariants
//
//   - Record first, memory after. A transaction is applied to memory when it is
//     durable, in the order of the log, by the log's writer. A transaction that
//     was not sent leaves memory as it was; one whose outcome is unknown turns
//     the pool read-only (EUNKNOWN).
//   - An object's data is durable before the record that creates it is sent; or,
//     of a small mblock on the metadata drive, with that record, which then says
//     so (unflushed.go).
//   - A zone is free again only after the delete's record is durable, no I/O
//     pins its extent, and it was discarded.
//   - Every id and birth stamp that was given lies below a counter that was
//     durable before it was given.
//   - The superblock's epoch is raised, durably on the metadata drive, before an
//     activation's first other write. No other drive has a higher one.
//   - A pool that lacks a drive is not written to.
//   - A create is admitted only when there is room in the metadata for its
//     delete.
//
// # Lock order
//
// Outermost first (the ranks of package sched):
//
//	meta.mu            (meta)    the room in the metadata, compactions
//	      meta.applyMu (apply) sent and not yet applied; held while one is applied
//	        object.mu  (object) one object's state; never two at once
//	        counters.mu (object) ids and birth stamps
//	          Pool.usesMu (uses) objects in use, their references
//	            layout.Table (layout)
//	              mlog.MDC (mdc) → mlog.Log (log)
//	                space.Map (space)
//	                drainer.mu, releases.mu, pace.mu (space) zones on their way to
//	                being free, who waits for them, whether a drive gets on; never two
//	                  bdev.Drive (drive) → its queue (queue)
//	                  background.mu, joiner.mu, mirror.mu, fence.mu (queue)
//
// Before all of them come the gates, which may be held across I/O because a
// wait for them ends with a context; also outermost first:
//
//	Pool.life    deactivation, renaming
//	Pool.admin   roots, owners, properties; until the outcome of their commit is known
//	meta.turn    the order of transactions; held across their append
package mpool
