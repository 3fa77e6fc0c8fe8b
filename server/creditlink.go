package server

import (
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// maxCreditsQueued is how many credit messages may wait for a session to read
// them.
const maxCreditsQueued = 1024

// maxLinks is how many handles of pools a session may have that borrow.
const maxLinks = 16

// creditLink is a handle of a pool as a debtor of the pool's creditor.
type creditLink struct {
	c    *creditor
	s    *session
	h    ioctl.Handle // of the pool
	id   credit.OwnerID
	link credit.Link

	mu sync.Mutex
	// +checklocks:mu
	queue []credit.Message // what the socket had no room for
	// +checklocks:mu
	draining bool // a goroutine sends the queue, of session.drains
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
		err = ref.pool.credits.receive(s, ref, m)
		s.doneWith(e)
	}
	if err != nil {
		s.reply(h.Op, h.Tag, nil, dressed(h.Op, err), -1)
	}
}

// receive passes a message on to the root.
func (c *creditor) receive(s *session, ref *poolRef, m *ioctl.CreditMessage) error {
	c.messages.Add(1)
	l := ref.credits.Load()
	if l == nil {
		if m.Message.Kind != credit.Hello {
			return api.Errorf(api.EINVAL, "", "the handle is no debtor: Hello comes first")
		}
		var err error
		if l, err = c.connect(s, m.Pool); err != nil {
			return err
		}
		ref.credits.Store(l)
	}
	msg := m.Message
	msg.From, msg.To, msg.Group = l.id, ioctl.Creditor, s.id
	id := layout.ObjectID(msg.Resource.ID)
	switch msg.Kind { //nolint:exhaustive // the others change nothing of what is watched
	case credit.Hello, credit.Bye: // what it had before is free
		had := c.root.Debts(l.id)
		l.link.Send(msg)
		c.reviewAll(had)
	case credit.Borrow:
		msg.Code = 0
		if msg.Resource.Type == credit.Access {
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
	return nil
}

func (c *creditor) reviewAll(list []credit.Resource) {
	for _, r := range list {
		c.review(layout.ObjectID(r.ID))
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
	return 0
}

// connect makes a debtor of a handle.
func (c *creditor) connect(s *session, h ioctl.Handle) (*creditLink, error) {
	if s.links.Add(1) > maxLinks {
		s.links.Add(-1)
		return nil, api.Errorf(api.EAGAIN, "", "%d handles of the session borrow credits, as many as may: use one of them", maxLinks)
	}
	l := &creditLink{c: c, s: s, h: h}
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
	defer c.leaf.Unlock()
	delete(c.links, l.id)
	l.s.links.Add(-1)
}

// close gives back all that the debtor has and returns of how many objects it had
// something.
func (l *creditLink) close() int {
	l.mu.Lock()
	l.s.creditsQueued.Add(-int32(len(l.queue)))
	l.ended, l.queue = true, nil
	l.mu.Unlock()
	had := l.c.root.Debts(l.id)
	l.link.Close()
	l.c.drop(l)
	l.c.reviewAll(had)
	return len(had)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return
	case !l.draining:
		if l.send(m, false) {
			return
		}
		l.draining = true
		l.s.drains.Go(l.drain)
	}
	l.queue = append(l.queue, m)
	if l.s.creditsQueued.Add(1) > maxCreditsQueued {
		l.s.srv.complaints.Warn("client does not read its credit messages", l.s.who())
		l.ended, l.queue = true, nil
		l.s.drains.Go(func() { l.s.end(ioctl.SourceProtocol) })
	}
}

// drain sends what the socket had no room for.
func (l *creditLink) drain() {
	for {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.draining = false
			l.mu.Unlock()
			return
		}
		m := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		l.s.creditsQueued.Add(-1)
		l.send(m, true)
	}
}

// send sends a message; without wait it says whether there was room.
func (l *creditLink) send(m credit.Message, wait bool) bool {
	buf := getBuffer()
	defer putBuffer(buf)
	b, err := ioctl.Append(buf.mem[:0], ioctl.Header{Op: ioctl.OpCredit, Flags: ioctl.FlagReply},
		&ioctl.CreditMessage{Pool: l.h, Message: m})
	if err != nil { // more spans than a message has: the debtor made them so many
		l.s.srv.complaints.Warn("credit message does not fit", l.s.who())
		l.s.drains.Go(func() { l.s.end(ioctl.SourceProtocol) })
		return true
	}
	sent := false
	if wait {
		_, err = l.s.conn.Write(b)
	} else {
		sent, err = l.s.trySend(b, nil)
	}
	if err != nil {
		l.s.drains.Go(func() { l.s.end(ioctl.SourceSocket) }) // nobody is there to hear
	}
	return sent || err != nil
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
