// Package credit says who may do what to what, now, while others use it: read,
// write, append to or delete bytes of an object, use space, have a pool active. It
// is a library of its own, without storage and without knowledge of where the
// work is done.
//
// # Terms
//
// A [Resource] has a [Type]. A [Credit] is a set of atoms of it, one mode at one
// position each; the type says which atoms conflict. An owner has credits, and
// lends them on: it is the creditor of its debtors, and the debtor of its
// creditor, up to the root, which has everything. A credit that a user of an
// owner needs for what it is doing is held ([Hold]); what an owner has and
// nobody below it holds or borrowed is cached, and serves later requests without
// a message. A request says whether it may borrow what is elsewhere and call
// back what others have, and whether it waits.
//
// [Book] is all of it as a state machine without goroutines, clocks or I/O: (state,
// message, time) to (state, messages). [Owner] makes it run, over an [Engine]
// that carries messages.
//
// # Invariants
//
//   - What an owner has lent and what its users hold is part of what it borrowed,
//     and of its holders no two have what conflicts (but members of one group).
//     What it borrowed without what they have is its own.
//   - What a debtor has is part of what its creditor lent it; the difference is
//     under way.
//   - A request waits behind each earlier one at the same owner that it conflicts
//     with, and asks the creditor for all that it wants, not for what is missing:
//     its place in the creditor's queue is for all of it. While it waits it holds
//     nothing. What the creditor calls back goes before it. So nobody starves, and
//     requests do not wait for each other in a circle; users who hold one thing
//     while they wait for another still can.
//   - What was called back for somebody who has given up is not wanted any more: its
//     holder keeps it, and no deadline runs.
//   - A debtor stops using what it has before its creditor considers the lease
//     over: it counts from when it asked, by its own clock, less what two clocks may
//     drift apart and the margin. Who has a lease gives none that ends later.
//   - A credit that was taken from its holder, and not given back, goes to nobody
//     with whom it conflicts before the holder's token is refused where the work is
//     done ([Fence], [Guard]). A middle asks the root for that ([Raise]).
//   - What is kept of a debtor is bounded, however it behaves: what it has, what it
//     waits for, what it was told and has not acknowledged, and the floors that its
//     losses raised.
//   - When a debtor is gone nothing of it is left in its creditor's book, and when
//     all are gone the root's book is empty: a resource of which nobody has
//     anything takes no memory.
//
// # What is not promised
//
// Without leases, an owner that was stopped and resumes may believe for a moment
// that it has what was taken from it. What it does is refused by its token; a
// copy of an object that it reads from its own memory in that moment is old. With
// leases [Hold.Valid] says no.
//
// A token that must be refused is refused with all that are older than the next grant. If
// two share an atom, one is gone, and the other is granted more that conflicts with what
// the first had, such as to write where both read, then what the other held of that
// atom before is refused with the dead one's: ErrStale where the work is done, although
// [Hold.Valid] says yes. It holds the newer grant: its token is the one to show. Nothing is
// lost to anybody else.
//
// Whoever releases a credit says that nothing is under way under it. An operation
// whose outcome is unknown is under way.
//
// # Life of a request
//
//	fresh -> check -> granted -> released
//	           |  ^      |
//	           v  |      +-----> lost -> released
//	         waiting
//	           |
//	         failed (from fresh and check, too)
//
// # A session
//
//	debtor                                  creditor
//	  | Hello (session, clock)  ------------> |
//	  | <---------- Welcome (lease, key)      |
//	  | Borrow (all that is wanted) --------> |   conflicts are called back, or
//	  | <---------- Grant (token, version)    |   wait for their turn
//	  | <---------- Recall (within)           |
//	  | <---------- Waive                     |   if nobody wants it any more
//	  | Return (version) -------------------> |   or, when it is too late,
//	  | <---------- Taken                     |
//	  | Renew (clock) ----------------------> |
//	  | <---------- Renewed (lease)           |
//
// [Kind] lists all messages. A Return crosses with a Grant of the same atoms: it
// says which messages the debtor had seen, and the creditor leaves the debtor
// what it granted after them. A Grant ends what was called back of it.
//
// # Lock order
//
// One lock, the owner's. It is not held while a message is sent; in one process
// that takes the receiving owner's lock.
//
// # Use
//
//	root, _ := credit.Open(credit.Options{Config: credit.Config{ID: 1}}, nil)
//	user, _ := credit.Open(credit.Options{Config: credit.Config{ID: 2}}, credit.NewLocal(root))
//	hold, err := user.Acquire(ctx, credit.Request{
//		Resource: credit.Resource{Type: credit.Access, ID: object},
//		Credit:   credit.Make(credit.Span{First: 0, End: 4096, Modes: credit.Read}),
//		Flags:    credit.MayBorrow | credit.MayRevoke,
//	})
//	// read, while hold.Valid()
//	hold.Release(credit.Version{})
package credit
