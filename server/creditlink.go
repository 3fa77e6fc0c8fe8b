package server

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// maxCreditsQueued is how many credit messages may wait for a session to read
// them.
const maxCreditsQueued = 1024

// maxLinks is how many handles of pools a session may have that borrow. A step of a
// creditor looks at all its debtors.
const maxLinks = 64

// maxUnacked is how many messages are kept for a debtor that does not acknowledge them. Who
// is refused for want of memory is told so nevertheless.
const maxUnacked = 4096

// creditLink is a handle of a pool as a debtor of the pool's creditor.
type creditLink struct {
	c    *creditor
	s    *session
	h    ioctl.Handle // of the pool
	id   credit.OwnerID
	link credit.Link

	room    int64       // bytes that are reserved for what is kept of it; the reader's
	evicted atomic.Bool // it has lost, in the book, more than was asked for

	mu sync.Mutex
	// +checklocks:mu
	queue []credit.Message // what the socket had no room for
	// +checklocks:mu
	draining bool // a goroutine sends the queue, of session.drains
	// +checklocks:mu
	gathering bool // what comes waits in the queue for what else comes with it
	// +checklocks:mu
	ended bool
}

// credit does what a client's owner of credits says. It is the reader's, so that
// messages stay in order, and waits for nobody.
func (s *session) credit(h ioctl.Header, m *ioctl.CreditMessage) {
	e, err := s.table.Use(uhandle.Handle(m.Pool), kindPool)
	if err != nil {
		err = badHandle(m.Pool)
	} else {
		ref := e.Value.(*poolRef)
		err = ref.pool.credits.receiveAll(s, ref, m)
		s.doneWith(e)
	}
	if err != nil {
		s.reply(h.Op, h.Tag, nil, dressed(h.Op, err), -1)
	}
}

// receiveAll passes messages on to the root that came together. What follows from them
// goes together, too.
func (c *creditor) receiveAll(s *session, ref *poolRef, m *ioctl.CreditMessage) error {
	if l := ref.credits.Load(); l != nil && len(m.More) > 0 {
		l.gather()
		defer l.sendGathered()
	}
	for msg := range m.All() {
		if err := c.receive(s, ref, m.Pool, msg); err != nil {
			return err
		}
	}
	return nil
}

// receive passes a message on to the root.
func (c *creditor) receive(s *session, ref *poolRef, h ioctl.Handle, msg credit.Message) error {
	c.messages.Add(1)
	l := ref.credits.Load()
	if l == nil {
		if msg.Kind != credit.Hello {
			return api.Errorf(api.EINVAL, "", "the handle is no debtor: Hello comes first")
		}
		var err error
		if l, err = c.connect(s, h); err != nil {
			return err
		}
		ref.credits.Store(l)
	}
	msg.From, msg.To, msg.Group = l.id, ioctl.Creditor, s.id
	id := layout.ObjectID(msg.Resource.ID)
	switch msg.Kind { //nolint:exhaustive // the others change nothing of what is watched
	case credit.Hello, credit.Bye: // what it had before is free
		has, waits := c.root.Debts(l.id)
		l.link.Send(msg)
		c.reviewAll(has, waits)
	case credit.Borrow:
		msg.Code, msg.Limit = l.makeRoom(len(msg.Credit))
		if msg.Code == 0 && msg.Resource.Type == credit.Access {
			if msg.Code = c.admit(s, ref, id, msg.Credit); msg.Code == 0 {
				defer c.unpin(id)
			}
		}
		l.link.Send(msg)
	default:
		l.link.Send(msg)
		if msg.Resource.Type == credit.Access && c.watching.Load() != 0 {
			c.review(id)
		}
	}
	if msg.Kind != credit.Borrow {
		l.giveRoom()
	}
	if l.evicted.Swap(false) {
		c.leaf.Lock()
		had := c.evicted[l.id]
		delete(c.evicted, l.id)
		c.leaf.Unlock()
		c.reviewAll(had)
	}
	return nil
}

func (c *creditor) reviewAll(lists ...[]credit.Resource) {
	for _, list := range lists {
		for _, r := range list {
			c.review(layout.ObjectID(r.ID))
		}
	}
}

// admit says why a session may not have a credit on an object. If it may, the object
// is watched.
func (c *creditor) admit(s *session, ref *poolRef, id layout.ObjectID, k credit.Credit) credit.Code {
	r := &request{s: s, op: ioctl.OpCredit, ctx: s.ctx}
	info, err := c.pool.pool.Describe(r.ctx, id)
	if err == nil {
		err = r.mustReachInfo(c.pool, &info)
	}
	if err != nil {
		return credit.ErrNotFound
	}
	foreign := info.State != api.StateCommitted && c.pool.adopter(id) != s
	for _, span := range k {
		if foreign && span.Modes&credit.Read != 0 {
			return credit.ErrNotFound // nobody else reads it before it is committed; it may be being made
		}
		if span.Modes&^credit.Read != 0 && !ref.writable {
			return credit.ErrDenied
		}
	}
	if c.watch(id) != nil {
		return credit.ErrBusy
	}
	c.relax(id)
	return 0
}

// connect makes a debtor of a handle.
func (c *creditor) connect(s *session, h ioctl.Handle) (*creditLink, error) {
	if s.links.Add(1) > maxLinks {
		s.links.Add(-1)
		return nil, &api.Error{
			Code: api.EAGAIN, Detail: fmt.Sprintf("%d handles of pools of the session borrow credits, as many as may: close one, or use one of them for what another is for", maxLinks),
			Refusal: &api.Refusal{Class: "handles that borrow", Owner: fmt.Sprintf("session:%d", s.id), Used: maxLinks, Asked: 1, Limit: maxLinks},
		}
	}
	l := &creditLink{c: c, s: s, h: h, room: creditRoom}
	if err := s.reserve(CreditBytes, l.room); err != nil {
		s.links.Add(-1)
		return nil, err
	}
	c.leaf.Lock()
	c.lastLink++
	l.id = c.lastLink
	c.links[l.id] = l
	c.leaf.Unlock()
	link, err := credit.NewLocal(c.root).Connect(l.id, l)
	if err != nil {
		c.drop(l)
		return nil, &api.Error{Code: api.EBADF, Detail: "the pool is being deactivated", Err: err}
	}
	l.link = link
	return l, nil
}

func (c *creditor) drop(l *creditLink) {
	c.leaf.Lock()
	delete(c.links, l.id)
	delete(c.evicted, l.id)
	c.leaf.Unlock()
	l.s.links.Add(-1)
	l.s.unreserve(CreditBytes, l.room)
}

// close gives back all that the debtor has and returns of how many objects it had
// something.
func (l *creditLink) close() int {
	l.mu.Lock()
	l.endLocked()
	l.mu.Unlock()
	has, waits := l.c.root.Debts(l.id)
	l.link.Close()
	l.c.drop(l)
	l.c.reviewAll(has, waits)
	return len(has)
}

// endLocked drops what waits to be sent: nothing is sent any more.
//
// +checklocks:l.mu
func (l *creditLink) endLocked() {
	l.s.creditsQueued.Add(-int32(len(l.queue)))
	l.ended, l.queue = true, nil
}

// fail ends the session, which cannot be told any more what it must be told.
func (l *creditLink) fail(by ioctl.Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(by)
}

// failLocked is fail. The session is ended apart: whoever has something to be sent to
// it may have locks.
//
// +checklocks:l.mu
func (l *creditLink) failLocked(by ioctl.Source) {
	l.endLocked()
	if !l.s.failing.Swap(true) {
		l.s.drains.Go(func() { l.s.end(by) })
	}
}

// Down implements [credit.Peer]: the creditor has ended with the pool, and so has
// the handle.
func (l *creditLink) Down() {}

// Deliver implements [credit.Peer]. It sends the message, or leaves it to be sent
// when there is room. The root calls it for one message at a time.
func (l *creditLink) Deliver(m credit.Message) {
	if m.Kind == credit.Grant && m.Resource.Type == credit.Access {
		m.Version = l.c.version(layout.ObjectID(m.Resource.ID))
	}
	if l.s.features.Load()&ioctl.FeatureLimit == 0 {
		m.Limit = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return
	case !l.draining && !l.gathering:
		sent, err := l.send(&ioctl.CreditMessage{Pool: l.h, Message: m}, false)
		if err != nil {
			l.failLocked(ioctl.SourceSocket)
		}
		if sent || err != nil {
			return
		}
		l.draining = true
		l.s.drains.Go(l.drain)
	}
	l.queue = append(l.queue, m)
	queued := l.s.creditsQueued.Add(1)
	if l.gathering && len(l.queue) >= ioctl.MaxCredits {
		l.sendQueued() // more may come, and would look like what nobody reads
		queued = l.s.creditsQueued.Load()
	}
	if queued > maxCreditsQueued {
		l.s.srv.complaints.Warn("client does not read its credit messages", l.s.who())
		l.failLocked(ioctl.SourceProtocol)
	}
}

// gather keeps what comes until sendGathered.
func (l *creditLink) gather() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering = true
}

// sendGathered sends what was gathered, or leaves it to be sent when there is room.
func (l *creditLink) sendGathered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering = false
	l.sendQueued()
}

// sendQueued sends what is queued as far as there is room, and leaves the rest to drain.
//
// +checklocks:l.mu
func (l *creditLink) sendQueued() {
	all := l.queue
	for left := all; len(left) > 0 && !l.draining; {
		m, rest := ioctl.PackCredits(l.h, left, l.s.features.Load())
		switch sent, err := l.send(&m, false); {
		case err != nil:
			l.failLocked(ioctl.SourceSocket)
			return
		case !sent:
			l.draining = true
			l.s.drains.Go(l.drain)
			return
		}
		l.s.creditsQueued.Add(-int32(len(left) - len(rest)))
		left, l.queue = rest, rest
	}
	if len(l.queue) > 0 {
		return
	}
	l.queue = nil
	if cap(all) <= 2*ioctl.MaxCredits { // nobody has it any more
		clear(all)
		l.queue = all[:0]
	}
}

// drain sends what the socket had no room for.
func (l *creditLink) drain() {
	for {
		m, ok := l.next()
		if !ok {
			return
		}
		if _, err := l.send(&m, true); err != nil {
			l.fail(ioctl.SourceSocket)
		}
	}
}

// next takes the first messages that wait; false: there is none, and what comes next is
// not drain's.
func (l *creditLink) next() (m ioctl.CreditMessage, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.draining = false
		return m, false
	}
	m, left := ioctl.PackCredits(l.h, l.queue, l.s.features.Load())
	l.s.creditsQueued.Add(-int32(len(l.queue) - len(left)))
	l.queue = left
	return m, true
}

// send sends a message; without wait it says whether there was room. An error is that
// nobody is there to hear.
func (l *creditLink) send(m *ioctl.CreditMessage, wait bool) (sent bool, err error) {
	buf := getBuffer()
	defer putBuffer(buf)
	b, err := ioctl.Append(buf.mem[:0], ioctl.Header{Op: ioctl.OpCredit, Flags: ioctl.FlagReply}, m)
	switch {
	case err != nil: // the root makes none of more than MaxRequests spans
		l.s.srv.log.Error("credit message does not fit", l.s.who(), slog.Any("error", err))
	case wait:
		_, err = l.s.conn.Write(b)
	default:
		return l.s.trySend(b, nil)
	}
	return err == nil, err
}

// versioned is a pool that knows which contents objects have.
type versioned interface {
	// Version returns what rises with an object's content, or zeros if that is not
	// known. It does not wait.
	Version(id layout.ObjectID) [2]uint64
}

func (c *creditor) version(id layout.ObjectID) credit.Version {
	if v, ok := c.pool.pool.(versioned); ok {
		return v.Version(id)
	}
	return credit.Version{}
}

// sessionOf returns the session of a number, or nil.
func (s *Server) sessionOf(id uint64) *session {
	if list := s.sessionsFrom(id, 1); len(list) == 1 && list[0].id == id {
		return list[0]
	}
	return nil
}
