// Package server is the daemon's body: it serves pools to client processes over
// a Unix socket, in the protocol of package ioctl.
//
// One connection is one session, and a session belongs to the process that
// connected: the kernel's credentials say which, a pidfd says when it has died.
// A session has a handle table of its own (package uhandle), its requests run
// concurrently and are answered by tag, and what it holds is released, exactly
// once, when it ends: by its socket's end, by its process's death, by a breach
// of the protocol, or with the daemon.
//
// # One request
//
//	reader ── receive, credentials, header, body ──► a slot (bounded) ──►
//	    goroutine: handle lookup, the call on the pool, reply ──► slot is free
//
// When all slots are taken the reader stops reading, so that a client cannot
// make the daemon hold more than its slots. A reply that its client does not
// read holds that client's slot and nobody else's.
//
// # What a client can do to the daemon
//
// Nothing but ask. Every byte is bounded and checked before use; descriptors
// attached to a message are refused by the kernel for want of room and end the
// session; a window into an arena is checked against its size, and an arena can
// neither shrink nor lose pages once it is sealed, so no access to it faults.
// Its content may change at any moment: the daemon parses nothing in place.
//
// # Uncommitted objects
//
// An uncommitted object is its session's: others do not find it. When the
// session ends it is disowned and swept: aborted as soon as nobody uses it. A
// request that was using it sweeps again when it ends, so an object is missed
// by nobody, whoever is last.
//
// # Goroutines
//
// Serve accepts; each session has a reader and one that watches the pidfd; each
// request in flight has one. Shutdown waits for all of them.
//
// # Lock order
//
// Server.mu → poolTable.mu → activePool.mu, session.mu; each guards maps and
// counts, and nothing that waits is called under it. activePool.sweeping is
// taken first, before all of them, and is held across calls into the pool: only
// sweeps take it.
package server
