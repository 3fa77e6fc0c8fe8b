package credit

import (
	"math"
	"time"
)

// upState is how an owner stands with its creditor.
type upState uint8

const (
	calling  upState = iota // a session is being opened
	attached                // there is one
	down                    // the creditor is gone
)

// upstream is what an owner knows of its creditor.
type upstream struct {
	id      OwnerID
	session uint64
	key     uint64 // the creditor's, of this session
	state   upState
	link    link
	ends    time.Duration // of the lease, 0: when the session does
	term    time.Duration // that the lease was for
	again   time.Duration // when to call or renew again
	bye     bool
	passed  []passed // Raises of debtors that were passed on
}

func (u *upstream) schedule(at func(time.Duration)) {
	at(u.ends)
	if u.state != down {
		at(u.again)
		u.link.schedule(at)
	}
}

// CreditorDown says that the creditor is gone. Requests that need it fail. What
// it lent may be used for as long as its lease lasts, or, without one, not
// any more.
func (b *Book) CreditorDown(now time.Duration) {
	b.begin(now)
	if u := b.up; u != nil && u.state != down {
		b.dirty = true
		had := u.state == attached
		u.state = down
		if !had || u.ends == 0 {
			b.void()
		}
		for _, a := range b.all() {
			b.settle(a)
		}
	}
	b.end()
}

// leave ends the session at once: the creditor is about to be told that this
// owner is gone, whatever its lease says.
func (b *Book) leave(now time.Duration) {
	b.begin(now)
	if u := b.up; u != nil && u.state != down {
		u.state = down
		b.void()
	}
	b.end()
}

// Attach says who the creditor is from now on: another one than before, in
// which case what the one before lent is dropped; or the same, which is there
// again.
func (b *Book) Attach(now time.Duration, creditor OwnerID) {
	b.begin(now)
	u := b.up
	switch {
	case u == nil || creditor == 0:
	case u.id == creditor && u.state == down && u.ends > b.now:
		b.dirty = true
		u.state, u.again, u.link.again = attached, b.now, b.now
		for _, a := range b.all() {
			b.settle(a)
		}
	case u.id != creditor || u.state == down:
		b.void()
		u.id = creditor
		b.hello()
	}
	b.end()
}

// Usable says whether what the creditor lent may still be used at now.
func (b *Book) Usable(now time.Duration) bool {
	if b.up == nil {
		return true
	}
	return b.up.ends == 0 || now < b.up.ends
}

// lasts says whether there is a session, be it with a creditor that is gone and
// may be there again before its lease has ended.
func (u *upstream) lasts() bool { return u.state == attached || u.state == down && u.ends != 0 }

// sendUp numbers a message to the creditor. Without a session it says nothing:
// the next one begins with nothing lent.
func (b *Book) sendUp(m Message) {
	u := b.up
	if u == nil || !u.lasts() {
		return
	}
	m.From, m.To, m.Session, m.Key = b.cfg.ID, u.id, u.session, u.key
	b.sendOver(&u.link, m)
}

// tellUp sends a message without a number.
func (b *Book) tellUp(m Message) {
	m.From, m.To, m.Session, m.Key, m.Ack = b.cfg.ID, b.up.id, b.up.session, b.up.key, b.up.link.taken
	b.up.link.paid()
	b.post(m)
}

// hello begins a new session.
func (b *Book) hello() {
	u := b.up
	b.dirty = true
	*u = upstream{id: u.id, session: u.session + 1, state: calling}
	b.call()
}

// call asks for the session or its lease, again.
func (b *Book) call() {
	u := b.up
	if u.state == attached {
		u.again = b.now + max(min(u.term/4, b.cfg.Retry), 1)
		b.tellUp(Message{Kind: Renew, Sent: b.now})
		return
	}
	u.again = b.now + b.cfg.Retry
	b.tellUp(Message{Kind: Hello, Sent: b.now, Group: b.cfg.Group})
}

// expireUp does what is due between an owner and its creditor.
func (b *Book) expireUp() {
	u := b.up
	if u.ends != 0 && b.now >= u.ends {
		wasDown := u.state == down
		b.void()
		if !wasDown {
			b.hello()
		}
	}
	if u.state == down || b.closed {
		return
	}
	if u.again != 0 && b.now >= u.again {
		b.call()
	}
	u.link.resend(b.now, b.cfg.Retry, b.post)
	if u.state == attached && u.link.isDue(b.now) {
		b.tellUp(Message{Kind: Ack})
	}
}

// leaseEnd returns when a lease is over here that the creditor gave when it was
// asked at sent. It is shorter here by what two clocks may differ over it, so that
// it ends here before it ends there, and by the margin.
func (b *Book) leaseEnd(sent, within time.Duration) time.Duration {
	drift := time.Duration(math.Ceil(float64(within) * 2 * float64(b.cfg.Drift) / 1e6))
	return sent + within - drift - b.cfg.Margin
}

// extend notes a lease that the creditor gave when it was asked at sent.
func (b *Book) extend(sent, within time.Duration) {
	u := b.up
	if within <= 0 {
		if u.ends == 0 {
			u.again = 0
		}
		return
	}
	ends := b.leaseEnd(sent, within)
	if sent > b.now || ends <= u.ends {
		return // of another life, or an older answer
	}
	u.ends, u.term = ends, within
	u.again = b.now + max((ends-b.now)/3, 1)
	b.dirty = true
}

// fromCreditor handles what comes from above.
func (b *Book) fromCreditor(m Message) {
	u := b.up
	if m.Session != u.session || u.state == down || u.state == attached && m.Key != u.key {
		return
	}
	b.dirty = true
	switch {
	case m.Kind == Gone:
		switch {
		case u.bye:
			u.state, u.link = down, link{}
		case u.state == attached:
			b.void()
			b.hello()
		}
		return
	case m.Kind == Welcome && u.state == calling:
		if m.Within > 0 && (m.Sent > b.now || b.leaseEnd(m.Sent, m.Within) <= b.now) {
			return // it is over already, or of another life
		}
		u.state, u.key, u.again = attached, m.Key, 0
		b.level = min(m.Level+1, Depth-1)
		b.extend(m.Sent, m.Within)
		for _, a := range b.all() {
			b.settle(a)
		}
		return
	case u.state != attached:
		return
	}
	heard := u.link.acked()
	next := u.link.take(&m, math.MaxInt)
	u.link.progress(heard, b.now, b.cfg.Retry, b.post)
	if next {
		b.obey(m)
	}
	if b.up.session == m.Session && u.link.owe(&m, next, b.now, b.cfg.Ack) {
		b.tellUp(Message{Kind: Ack})
	}
}

// void drops all that was borrowed: the session is over. Requests that wait ask
// again in the next one.
func (b *Book) void() {
	b.dirty = true
	b.up.ends = 0
	b.up.passed = nil
	b.up.link = link{}
	if b.up.state == attached {
		b.up.state = calling
	}
	for _, a := range b.all() {
		b.forfeit(a, a.borrowed)
		a.token, a.owed, a.raises, a.tainted = Token{}, 0, nil, nil
		for _, q := range a.queue {
			q.asked = 0
		}
		b.settle(a)
	}
}
