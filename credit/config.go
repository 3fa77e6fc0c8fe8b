package credit

import "time"

// DefaultCallBack is a call-back's deadline for who has no better one.
const DefaultCallBack = 30 * time.Second

// Config is what an owner is. Times are by the owner's own clock, which never
// goes back; nobody compares the clocks of two owners.
type Config struct {
	ID       OwnerID
	Creditor OwnerID // who lends to it; 0: nobody, this owner is the root
	Group    uint64  // debtors of one creditor and one group, if not 0, never conflict with each other

	Lease time.Duration // how long a debtor of this owner has what it has without renewing; 0: until it ends
	// Drift bounds how much faster or slower than true time a clock of any owner
	// runs, in parts per million; Margin is what a debtor keeps of its lease for
	// what it has begun: longer than its longest operation. A lease of which they
	// leave nothing begins no session.
	Drift  int
	Margin time.Duration

	CallBack time.Duration // how long who is called back may hold on; 0: for ever
	Retry    time.Duration // after which a message is sent again; 0: 100 ms
	// Ack is how long the acknowledgement of a Grant or a Return waits for a message to
	// go with, or up to twice that: well below the other side's Retry. 0: it is sent at
	// once.
	Ack time.Duration
	// MaxRequests bounds the requests of one debtor that wait, and the spans of one
	// request and of one message; 0: 1024. MaxSpans bounds what is kept of one debtor: the spans that it
	// has or waits for, of all resources together; 0: 16384. Who asks for more is
	// refused with ErrLimit; whose credits fall to pieces is asked to give back what
	// it does not hold, and its session ends if there are four times as many. So it
	// does if it had that many tokens of its own refused ([Raise]).
	MaxRequests, MaxSpans int
	// MaxUnacked is how many messages a debtor may leave unacknowledged before nothing
	// more is taken from it: what it says then it has to say again. Who is honest
	// acknowledges what it has taken with each message. 0: 16 for each of MaxRequests. Who
	// has sent four times as many to its creditor, which has not acknowledged them, asks for
	// nothing more: ErrLimit.
	MaxUnacked int
	// Leaves says that debtors of this owner lend to nobody, so that nobody has a
	// token of a debtor that is gone: see [Unfenced].
	Leaves bool

	// Of the root only. FirstToken is above all tokens of the root's predecessors;
	// Grace is how long it grants nothing, because what they lent may still be used:
	// their lease. Capital says what there is of a resource, nil: all. Version
	// says which contents a resource has, nil: nobody wants to know. Both are
	// looked up in the middle of a step: they must not call back.
	FirstToken uint64
	Grace      time.Duration
	Capital    func(Resource) Credit
	Version    func(Resource) Version
}

// Flags say what may be done for a request. Without MayBorrow and MayRevoke it is
// served from what the owner has, or not.
type Flags uint8

// The flags.
const (
	MayBorrow Flags = 1 << iota // ask the creditor for what the owner does not have
	MayRevoke                   // call back what others have
	Try                         // do not wait until somebody lets go; ErrBusy instead
)

// Request is a wish for a credit.
type Request struct {
	Resource Resource
	Credit   Credit        // what, in normal form; of a divisible type nothing
	Amount   uint64        // of a divisible type: how many positions
	Flags    Flags         //
	Deadline time.Duration // when to give up, by the owner's clock; 0: never
	// Group, if it is not 0, is whose request it is in place of the owner's: it never
	// conflicts with debtors of that group, nor with other requests that name it.
	Group uint64
	// Keep, of a user of the root, says that what is granted is not taken when it is called
	// back, however long it is held: something is under way under it that nobody can stop.
	Keep bool
	// Lost is called when what was granted is taken, in place of being told by
	// [Hold.Lost] and as [Options.Fence] is: before anybody gets what conflicts, with the
	// owner's lock held. Nil: nobody wants to know. A Book does not look at it.
	Lost func()
}

// EventKind says what an event is.
type EventKind uint8

// The events.
const (
	Granted    EventKind = iota + 1 // Request has Credit, under Token, and holds it
	Failed                          // Request was not granted: Code, Limit
	CalledBack                      // somebody wants what Request holds: release it
	Lost                            // what Request holds was taken, or its lease has ended: it is good for nothing
	Fence                           // root: refuse tokens older than Token for Credit, before any message goes out
	Fenced                          // Credit was taken from the debtor Owner
	Closed                          // the owner has given everything back
	Waived                          // nobody wants what Request holds any more
	Unfenced                        // root with Leaves: who had older tokens of Resource is gone
	Evicted                         // the debtor Owner broke its bounds: it has nothing of Resource any more, nor waits for it
)

// Event is what a step tells the owner's users.
type Event struct {
	Kind     EventKind
	Request  uint64
	Owner    OwnerID
	Resource Resource
	Credit   Credit
	Token    Token
	Version  Version
	Code     Code
	Limit    *Limit
}
