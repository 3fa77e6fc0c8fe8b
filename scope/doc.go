// Package scope decides who may use how much of a process now: memory, connections,
// descriptors and tasks. What is used is reserved before, in a scope, and counts in
// that scope and in all above it, or nowhere. The package knows nothing of what the
// scopes stand for, and keeps nothing but memory.
//
//	                        System
//	      ┌───────────────┬───┴─────────────┐
//	  Transient      service:data       user:1000
//	      │               └───────┬─────────┘
//	connections that          client:4711
//	have not said whose       ┌───┴────┐
//	they are             connection   span ── span
//
// The scopes are a directed acyclic graph: one may stand below several others. What
// is reserved in it counts in each scope above it once, by however many ways that is
// reached.
//
// # Invariants
//
//	books      the use of a scope is what is reserved in it and in all below it, of each
//	           kind, whenever no call is under way
//	refusal    what is refused has changed no count. While it is being refused by a scope,
//	           those below, and the refusing one in kinds that a total counts, may count it for
//	           that moment
//	limits     no reservation takes a use above its limit. A limit that is lowered below
//	           the use refuses what is new, and no release
//	release    a scope gives back what was reserved in it, itself, and no more: a second
//	           release is an error and changes nothing
//	closing    what stands below a closed scope keeps what it has until it is done itself,
//	           and gets nothing more, unless that is opened again
//	tasks      what a task gives back is offered to the tasks that wait before anybody else can
//	           take it; and one that waits begins after so many others at the latest, also
//	           where it stands below several scopes, for as long as those that run end
//	names      one name, one scope, from its first Open until it is closed by all who
//	           opened it and nothing stands below it any more
//
// # Limits
//
// Limits stand in layers, of which the last that says something decides: built-in
// defaults, a file, what was set while running. A limit is a number, a share of the
// machine's ("5%"), "unlimited" or "block". Where nothing is said there is no limit.
// [Manager.List] tells each limit and the layer that it comes from.
//
// # Order of locks
//
// Manager.mu → Scope.mu, and scheduler.mu → Scope.mu. Several of the last are locked by
// an Open and a Move, under Manager.mu, and by the beginning of a span: the scope's, then
// that of a span that is in no other's reach. Counts are atomic and taken without a lock, from a scope upwards. No function of a
// caller's is called under a lock. The package starts no goroutine.
package scope
