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
// # Invariants
//
//   - Record first, memory after. A transaction is applied to memory when it is
//     durable, in the order of the log, by the log's writer. A transaction that
//     was not sent leaves memory as it was; one whose outcome is unknown turns
//     the pool read-only (EUNKNOWN).
//   - An object's data is durable before the record that creates it is sent.
//   - A zone is free again only after the delete's record is durable, no I/O
//     pins its extent, and it was discarded.
//   - Every id and birth stamp that was given lies below a counter that was
//     durable before it was given.
//   - The superblock's epoch is raised, durably, before an activation's first
//     other write.
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
//	                drainer.mu (space) zones on their way to being free
//	                  bdev.Drive (drive) → its queue (queue)
//
// Before all of them come the gates, which may be held across I/O because a
// wait for them ends with a context; also outermost first:
//
//	Pool.life    deactivation, renaming
//	Pool.admin   roots, owners, properties; until the outcome of their commit is known
//	meta.turn    the order of transactions; held across their append
package mpool
