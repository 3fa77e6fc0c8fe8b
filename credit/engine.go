package credit

import "context"

// Engine is how an owner reaches its creditor: one in the same process
// ([Local]), one behind a socket, or what a store that several hosts share makes
// of the same messages.
//
// An engine promises:
//   - Messages may be lost, doubled, delayed and overtaken, and are never changed.
//   - Either the creditor gives leases, or the end of a connection is told to both
//     (by [Peer.Down], and by [Book.DebtorDown] at the creditor), and nothing is lost
//     before that.
//   - After the end of a connection was told, nothing of it comes any more.
type Engine interface {
	// Creditor returns who lends.
	Creditor() OwnerID
	// Connect connects a debtor. What comes for it is given to the peer until the
	// link is closed.
	Connect(debtor OwnerID, peer Peer) (Link, error)
}

// Peer is the debtor's end of a connection. Its methods do not wait for the
// engine, which calls them with no lock held that Link's methods need.
type Peer interface {
	Deliver(m Message) // a message has come
	Down()             // the connection has ended
}

// Link is the engine's end of a connection.
type Link interface {
	// Send sends a message, or loses it. It does not wait for who it is for.
	Send(m Message)
	// Close ends the connection: the debtor is gone.
	Close()
}

// Packer is a [Link] that carries several messages as one.
type Packer interface {
	// SendAll sends messages in their order, each as Send does. It does not keep the
	// list.
	SendAll(m []Message)
}

// Waiter is a [Link] by which who waits for an answer can receive it himself.
type Waiter interface {
	// Attend is called before what a caller waits for is asked for. It says whether the
	// caller is to receive.
	Attend() bool
	// Receive is called after Attend has said so, when that was sent, and gives what
	// comes to the peer. It returns when done is closed, which may be before, when the
	// context ends, or when it is better to let others receive: the caller waits on.
	Receive(ctx context.Context, done <-chan struct{})
	// Leave is called after Attend, in any case, when the caller waits no more.
	Leave()
}

// Local is the engine between owners of one process. It loses nothing and tells
// of every end.
type Local struct{ creditor *Owner }

// NewLocal returns the engine by which others become debtors of creditor.
func NewLocal(creditor *Owner) *Local { return &Local{creditor} }

// Creditor implements [Engine].
func (l *Local) Creditor() OwnerID { return l.creditor.opt.ID }

// Connect implements [Engine]. It fails with ErrClosed if the creditor has
// stopped, and with ErrInvalid if it has a debtor of that id, or a creditor.
func (l *Local) Connect(debtor OwnerID, peer Peer) (Link, error) {
	o := l.creditor
	link := &localLink{o, debtor, peer}
	o.mu.Lock()
	defer o.mu.Unlock()
	code := Code(0)
	switch {
	case o.stopped:
		code = ErrClosed
	case o.debtors[debtor] != nil || debtor == 0 || debtor == o.opt.ID || o.book.up != nil && debtor == o.book.up.id:
		code = ErrInvalid
	}
	if code != 0 {
		return nil, &Error{Code: code, Op: "connect", Owner: debtor, Detail: "the creditor is closed, or knows a debtor of this id, or its creditor has it: choose another"}
	}
	o.debtors[debtor] = link
	return link, nil
}

// localLink is a connection to an owner of this process.
type localLink struct {
	creditor *Owner
	debtor   OwnerID
	peer     Peer
}

// Send implements [Link].
func (l *localLink) Send(m Message) {
	o := l.creditor
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.debtors[l.debtor] == l && m.From == l.debtor && !o.stopped {
		o.book.Receive(o.opt.Now(), m)
		o.collect()
		o.flush()
	}
}

// Close implements [Link].
func (l *localLink) Close() {
	o := l.creditor
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.debtors[l.debtor] == l {
		delete(o.debtors, l.debtor)
		o.book.DebtorDown(o.opt.Now(), l.debtor)
		o.absorb()
	}
}
