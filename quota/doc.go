// Package quota says how much of each resource class an owner may hold, and keeps
// the records of what is held. It is a library of its own: it knows nothing of
// pools, daemons or processes.
//
// # Words
//
// A resource class ([Class]) is something that is counted: bytes, instances. Owners
// ([Owner]) form a tree, whose root has no name. A claim ([Claim]) is a record that
// says that an owner holds amounts of one or several classes. It counts for its
// owner and for every owner above. Claims form trees of their own: a claim may lie
// under another one, and is released with it.
//
// A claim is *reserved* (until a time at which it ends, see below) or *held* (under
// a name that the caller gave it, its real id). Both count, and count from the
// moment that the record is made.
//
//	reserve ──► reserved ──provision──► held ──release──► no record
//	               │ └──── expire ─────────────────────────▲
//	               └────── release ────────────────────────┘
//
// # Promises
//
//   - Usage is the sum over the records. Nothing keeps a count beside them; a store
//     may keep sums in memory, as a cache that is made from the records ([Books]).
//   - No claim, resize or transfer takes what an owner, or an owner above, holds over
//     its limit; and none is refused for want of room if at every moment of the call
//     there was room.
//   - A call is done whole or not at all, whatever it is about: several classes,
//     a whole subtree. Only a release of more than [MaxSubtree] claims is done in
//     several steps, those below first.
//   - Shrinking and releasing are never refused by a limit. What is held stays when a
//     limit is lowered below it; an [Over] says by how much.
//   - A reservation ends once: it is provisioned, released or expired.
//   - A call that is repeated with its request id does nothing more, and returns the
//     claim as it is.
//
// # Concurrency
//
// The store has a generation that rises with every change. Each call reads what it
// needs from one view, decides, and writes on condition that the generation is still
// the view's; if it is not, it begins anew with a fresh view, after a pause that
// grows and is random, until its context ends. A store needs no more than READ
// COMMITTED for that, and no transaction is open while anybody thinks: see [Store].
//
// # Limits
//
// An owner's limit for a class is the one set for it, else the class's default. The
// class's total limits all owners together. 0 is zero; what has no limit has
// [Unlimited]. Limits are looked at when something is claimed and not when they are
// set: those of children may add up to more than their parent's.
//
// # Expiry
//
// A reservation ends at its time, unless something below it is held or ends later:
// what exists is released only by those who made it. Who claims and finds no room
// ends what is due first; nobody has to call [Ledger.Expire] for limits to be exact.
// The clock is the caller's. When it jumps ahead, reservations end early, when it
// jumps back, late; the books are exact whatever it does.
package quota
