// Package client is a pool's user's side of the daemon's socket: [Dial] gives a
// connection, which implements [api.Manager] and opens pools that implement
// [api.Pool] and [api.Quotas]. It carries no engine.
//
//	c, err := client.Dial(ctx, client.Options{})
//	p, err := c.OpenPool(ctx, "data")
//	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 32 << 20})
//	_, err = b.Write(ctx, buf)
//	err = b.Commit(ctx)
//
// One connection is one handle table: what it opened is its own, and is given
// back by the daemon when the connection or the process ends; uncommitted
// objects are then gone. A connection belongs to the process that dialed: the
// calls of a child that has it get EPERM, its shared memory is not in the child,
// and exec closes it.
//
// # Data
//
// Reads, writes, allocations and commits of mblocks, appends and syncs go through a
// ring in memory shared with the daemon (package ioctl/ring), which the first of them lets be
// made; until it is there, and for good if the daemon has none to give, they
// travel as everything else: up to ioctl.MaxInline bytes within a message, more
// through shared memory. Callers need not know. In the ring
//
//	any number of goroutines put requests in; one of those who wait, the
//	leader, takes the answers for all, and sleeps when there are none; when
//	its own is there, or its context ends, another one leads
//	up to 4 KiB travel in a page of the request's slot; more in regions of
//	arenas, in pieces of 1 MiB, of which four of one call are under way
//	an error comes on the socket; either answer ends the request, once
//	what has no data goes over the socket when all slots are taken
//
// Small reads of a committed mblock that follow each other are served from what
// was read ahead. The daemon has verified all bytes before it hands them over.
//
// Who has more to do than to wait uses a [Queue]: operations are put in and
// their completions reaped later. Its data, and that of [BufferIO], lies in a
// [Buffer], memory that was borrowed, and is copied nowhere.
//
// # Credits
//
// With Options.Credits a connection takes credits on objects itself (package
// credit); without, the daemon alone minds what handles do to each other. A pool
// then implements [Credits]: the program holds a credit on an object, or on a range
// of it, as long as it needs others to keep away.
//
//	c, err := client.Dial(ctx, client.Options{Credits: &client.CreditOptions{Bytes: 64 << 20}})
//	p, err := c.OpenPool(ctx, "data")
//	h, err := p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditWrite, Length: 4096})
//	select {
//	case <-h.Wanted(): // others wait
//	case <-h.Lost(): // taken: begin anew
//	case <-done:
//	}
//	err = h.Release()
//
// The pool's Close is EBUSY while credits are held through it. What is released stays
// cached: it serves the next request without a message until another process wants it,
// or too much is cached.
//
//	open of a committed mblock    a read credit, if it is to be had at once, held to
//	                              the handle's end; else as without credits
//	the same again                no message: the daemon gives a handle when
//	                              something is asked that only it can do
//	read                          from this process's memory, if the bytes are here
//	                              of the version that the credit was granted for
//	                              (EBUSY if they are not, the daemon has given no handle,
//	                              and somebody waits to delete the mblock)
//	a delete                      EBUSY while the handle or a [View] is there, also if it
//	                              is this process's own; then another's calls the credit
//	                              back, and the bytes go at once
//	the call-back's deadline      the credit is lost; a handle that the daemon knows of is
//	                              ESTALE, another asks for one when it is used: EBUSY
//	                              while others hold the mblock, ESTALE if it is deleted
//
// Only mblocks are cached: their content does not change, and is read again and again. A
// log's readers read each record once, and its end moves while they have read credits. Who
// keeps what it has read of a log asks [Hold.Version] whether the log is as it was.
//
// The daemon does not call back what a connection has of an object that the connection
// itself deletes, erases or appends to: the library does.
//
// Credits end with their connection. Holds are then lost, and the mblocks that are
// open are EBADF as ever. Bytes are kept, and used again where the next connection's
// credit is for the same version. A process that was stopped past a deadline may read,
// until it has read what the daemon sent meanwhile, what the mblock's bytes were; never
// those of another one.
//
// # Locks
//
//	link.mu → sharedRing.mu or Queue.mu → arenas.mu
//	linkCredits.mu → link.mu, the lock of an owner of credits
//
// The memory of a ring is mapped as long as somebody may touch it: until the
// connection is gone and no caller is within.
//
// # Deadlines
//
// A context's deadline goes with a message, not through the ring, and its end is
// told to the daemon. The call then waits a moment for the daemon to say what became of the
// request. If it does not, the call returns: with EUNKNOWN if the request may
// have changed something, else with the context's error. What the request may
// yet give, a handle say, is given back when it comes.
//
// # When the connection breaks
//
// The next call that needs a connection makes another: at once, then after
// pauses that grow from 10 ms to 1 s, for as long as Options.Reconnect says. All
// calls that wait share one attempt. One that waited in vain, or whose request
// was never sent, gets ECONNRESET: nothing was done.
//
// A pool is opened again by its name: ENOENT while it is not active, EBADF if
// another pool has the name. It goes on as if nothing had been. All else that
// the old connection gave, handles on objects, appenders, readers, containers,
// is EBADF for ever, and never another object: find or open it again. Giving it
// back (Put, Close of a reader) succeeds; Close of an appender or a container is
// EBADF, for it promises a sync. If the daemon still lives, it holds what the
// old connection had for a moment more: an open for append may be EBUSY.
//
// A call whose request was sent and not answered returns
//
//	what only asks: find, open pool, lists,   the answer of the next daemon
//	info, roots, Get, reads of mblocks
//	a list that has begun                     ECONNRESET: begin it again
//	Commit, CommitMany, Delete, Abort         what the library finds by looking:
//	                                          nil if it is done; ECONNRESET if it
//	                                          is not
//	SetRoots                                  nil if the roots are as asked for,
//	                                          else EUNKNOWN
//	PutMblock                                 EUNKNOWN: there may be one, which its
//	                                          tag and owner tell
//	AllocMblock, AllocMlog, Write, OpenAppend ECONNRESET: it has left nothing
//	OpenRead, OpenMDC, Next, Seek
//	Grant, Revoke                             ECONNRESET: the object went with the
//	                                          connection, unless it was accepted
//	                                          before
//	Accept                                    EUNKNOWN: if it was done, the object
//	                                          went with the connection; accept
//	                                          again: ENOENT says that it was done,
//	                                          or that the grant is over
//	Append, Sync, Close of an appender        EUNKNOWN; api.Error.Records is one
//	                                          above the last record that is
//	                                          known to have been answered, and
//	                                          durable only if it was synced
//	Erase, AddOwner, MDCs, managing pools     EUNKNOWN
//
// Looking needs a connection, the pool, and the end of the old session's work;
// if that is not to be had in time the outcome is EUNKNOWN. An object is the
// same if its id and the time of its allocation are.
package client
