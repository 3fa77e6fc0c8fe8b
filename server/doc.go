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
//	reader ── receive, credentials, header, body ──► a slot (bounded) ──► its turn ──►
//	    goroutine: handle lookup, the call on the pool, reply ──► slot is free
//
// When all slots are taken the reader stops reading, so that a client cannot
// make the daemon hold more than its slots. A reply that its client does not
// read holds that client's slot and nobody else's.
//
// # Turns
//
// A bounded number of requests runs at one time, of each kind by itself: done in
// memory, moving data, waiting for a flush. Those that wait are served so that
// each process has as many bytes as the others, whatever each asks for and on
// however many sessions; who asks for less than that is next. A place that is
// held for long, by a hanging drive or by a request that waits for another, is
// lent to the next one, so that nothing waits for it. What a process costs beside
// its requests, sessions made and messages that are answered at once, is paced:
// see paceShare.
//
// # Rings
//
// Data also goes through rings (package ioctl/ring), without messages. An I/O loop
// (ioLoop), one goroutine bound to its thread with a [bdev.Queue] of its own, serves
// the rings of its sessions:
//
//	ring ──► copied, checked ──► begun: handle, pin, checksums ──► the drive's turn ──► queue
//	              │                   │                                                  │
//	              │                   └─ a synced append: the log calls back ──► loop ◄──┘
//	              └─ would wait ──► its handle's lane: a goroutine, the socket's handlers ──► loop
//
// All that a loop has is its goroutine's alone; others hand it functions and
// operations that they have ended, under ioLoop.mu. A handle is in use only until
// its operation is begun: from then on the object's pin counts. While a handle has a
// lane all its descriptors but allocations go there, in order. Of writes and a commit that
// are chained, those behind one that failed are refused. An error is sent by a goroutine of the
// session's, and its descriptor is open until then. See docs/architecture.md.
//
// # What a client can do to the daemon
//
// Nothing but ask. Every byte is bounded and checked before use; descriptors
// attached to a message are refused by the kernel for want of room and end the
// session; a window into an arena is checked against its size, and an arena can
// neither shrink nor lose pages once it is sealed, so no access to it faults.
// Its content may change at any moment: the daemon parses nothing in place.
//
// A message is its session's if it has the pid of the process that connected. Who
// inherited that process's socket, outlives it and takes its very pid before the
// daemon has noticed its death can speak for it for that moment, and is ended with the
// session. To choose one's pid (clone3's set_tid) takes CAP_SYS_ADMIN or
// CAP_CHECKPOINT_RESTORE. To ask the pidfd at every message would cost each a system call.
//
// # Uncommitted objects
//
// An uncommitted object is its session's: others do not find it. When the
// session ends it is disowned and swept: aborted as soon as nobody uses it. Who
// was using it sweeps it again when he lets go of it, so an object is missed by
// nobody, whoever is last. A commit that comes through after its request has given
// up lets go of nothing: the next session's end finds it. While a pool is being
// deactivated nothing is swept: it goes with the pool, or is swept if that stays.
//
// # Hand-over
//
// A session may grant an object of its own to whoever shows a token, as package api
// says. What an accept does is done under activePool.mu in one piece (see handOver):
// it takes the giver's handle, if nobody uses it and the pool says that nothing else
// holds the object, fills a handle that the taker had reserved, and moves the
// ownership. A session that ends closes its table first and takes that lock after: it
// either has given the object or has not, and so with the taker. If the taker's table
// is closed in the last moment, the object is orphaned as the taker's. In every moment
// a reference is in one table, or in the hands of who moves it under the lock.
//
//	the taker reserves ─► the giver's handle is taken ─► the taker's is filled ─► its own
//	        │ full, ended        │ in use, busy: EBUSY           │ ended: released,
//	        ▼                    │ gone: ENOENT                  ▼ swept and aborted
//	   refused                   ▼ nothing has changed
//
// # Credits
//
// Each pool has a creditor, the root of its objects' credits (package credit). A
// handle of the pool is its debtor from the first credit message on; those are
// passed on by the session's reader and answered by the root's goroutine, or, when
// the socket has no room, by one of the session's. Handles on objects of which a
// client has a credit or wants one claim what they do: see type creditor. Who does not
// give back in time is fenced: a claim that is taken ends its handle, which is ESTALE
// from then on. See docs/architecture.md.
//
// # Death
//
// A session ends for the first reason that is seen: its socket's end, the news
// of its process's death (package uhandle), a breach of the protocol, the
// daemon's end. What then happens is a row of states. Each ends by itself, and
// none waits for another session or for the pidfd:
//
//	state      what happens in it, and what ends it
//	live
//	 │ end     by whoever saw the reason, in its goroutine and in no time: nothing more
//	 │         is taken, all handles end, requests are cancelled but for those that must
//	 ▼         run to their end, the socket is closed, which wakes the reader
//	ended      by the reader: rings are dropped; references, 64 at a time; then
//	 │         uncommitted objects that nobody uses. All of it is in memory
//	 ▼
//	let go     logs that were open are closed, each by itself, because that may write or
//	 │         wait for others of that log; requests in flight end, each with what it
//	 │         uses; rings end with their last I/O. The event is told when all that is
//	 │         over, or after 250 ms: it waits for nobody's drive any longer, and at most
//	 ▼         1.1 s for how a process ended that is known to be dying. Nothing waits for it
//	gone       arenas are given back, which no I/O touches any more, and, when the event is
//	           told, the pidfd
//
// A reference of the dead is in nobody's way from its session's end on, although
// giving back thousands takes a millisecond: who would be refused because of one
// has the dead let go of that object first (type dying). What stays until its own
// drive lets go of it is what a request in flight uses that must run to its end, a log
// that is being closed, and the extents and arenas under I/O.
//
// # Who may do what
//
// Root and the daemon's own user administer. Others open a pool by its uid, gid
// and mode. Within a pool that is not shared an object is for its owner, the
// owner's ancestors, administrators and the pool's own user: see [OwnerRule].
// Who acts for nobody has the pool's own objects, those of owner 0. What is not
// for a session is not there: ENOENT, and left out of lists. A handle keeps the
// right that it was given by. Roots are the pool's: who may write it may set and
// unset any, to objects that it may use; who may open it sees all their names
// and ids. Sessions, handles and events of other users are shown to
// administrators only, and so are the processes that hold a busy object.
//
// # Bounds
//
//	sessions                  Limits.Sessions, and 64 clients being refused
//	a session's requests      Limits.Requests, each with one goroutine, its message's
//	                          buffer if it carries data, and two for its answer
//	requests that run         by kind, some per processor: see fair; more only while
//	                          others are held up
//	rings                     ioctl.MaxRings a session; loopWords and loopEars a loop
//	a session's descriptors   the entries of its rings, and setOps; bytes begun: Limits.ArenaSession
//	a session's lanes         Limits.Requests goroutines, and one for errors
//	I/O of loops              Options.Loops threads; driveOps and driveBytes per drive and loop
//	a session's lists         16 that are being read
//	a session's handles       Limits.Handles; while it ends, a goroutine per open log or reader,
//	                          each of which has its turn as a request that waits for a flush
//	mappings of the dead      4 are ended at one time
//	arenas                    Limits.Arenas and ArenaSession per session, ArenaTotal
//	a message                 ioctl.MaxMessage; a page of any list, one message
//	credit messages that wait 1,024 of a session, of which 64 handles of pools may borrow; who
//	                          reads none of more, or to whom one cannot be sent, is ended
//	a debtor's credits        credit.Config.MaxRequests, MaxSpans and MaxUnacked; for longer than
//	                          Options.CallBack only what nobody else wants; memory for it is
//	                          reserved, 64 KiB at once, given back with it
//	handles that were fenced  remembered until they are given up, Limits.Handles of a session
//	grants                    256 of one session in a pool, 4,096 of a pool; an hour
//	events                    4,096, or Limits.Sessions up to 65,536; of one pool 256 different ones in 10 s
//	log lines by clients      20 of each message in 10 s
//	owner rules               65,536
//	changes of a pool         one at a time per pool
//	silence before hello      Limits.HelloTimeout
//	a wait for events         ioctl.MaxEventWait
//	closing a dead client's log  30 s
//
// Below these a [Reserver], in the daemon [Scopes], decides, which is asked for
// everything before it is used.
//
// # Goroutines
//
// Serve accepts; one goroutine writes pools' troubles to the log, and one tells Scopes
// the memory of pools; each session
// has a reader, one per source of news of death, and, while it ends, one per log
// that is being closed, one that waits for them and one that tells of the end; each request in flight has
// one, and each change of a pool. A pool's creditor has one, and one for each handle that
// is being fenced; a session, one per handle of a pool whose credit messages wait for
// room in its socket. An I/O loop has one, and one per ring where io_uring
// cannot wait for rings; a session, those of its lanes and of its errors. Shutdown waits for all of them within its time.
//
// # Lock order
//
// Server.mu → poolTable.mu → activePool.mu, session.mu → dying.mu → uhandle.Table, feed.mu,
// ownership.mu, eventRing.mu, budget.mu, fair.mu; sessionRings.mu → ioLoops.mu, ioLoop.mu,
// which is innermost as handleLane.mu and errorQueue.mu are. Each guards maps and counts, and
// nothing that waits is called under it, but for the start of a loop under sessionRings.mu.
// activePool.mu → creditor.mu → the lock of its credit.Owner → creditor.leaf, feed.mu,
// eventRing.mu; creditLink.mu is taken with none of them held. A
// hand-over asks the pool under activePool.mu and the giver's table whether the object is
// free; the pool neither waits there nor calls back. session.letting and then
// activePool.sweeping are taken first, before all of them, and are held across calls into the
// pool that do not wait for a drive: the one by who releases what an ended session held, the
// other by sweeps. A turn is taken with none of them held.
package server
