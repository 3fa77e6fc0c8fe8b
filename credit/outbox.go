package credit

import (
	"runtime"
	"slices"
	"time"
)

// absorb does what a step of the book left to be done, and leaves what is to be sent to
// the owner's goroutine. For callers who must not send: it may be their creditor's
// message, or a debtor's end, that they tell of.
//
// +checklocks:o.mu
func (o *Owner) absorb() {
	o.collect()
	if !o.sending && o.pressing() {
		o.poke()
	}
}

// keepMost is how many messages are kept that nobody waits for.
const keepMost = 64

// pressing says whether there is something to be sent now.
//
// +checklocks:o.mu
func (o *Owner) pressing() bool {
	n := len(o.outbox)
	return n > keepMost || n > 0 && o.keep <= o.opt.Now() ||
		slices.ContainsFunc(o.outbox, func(m Message) bool { return !m.Unasked })
}

// collect is absorb for who calls flush.
//
// +checklocks:o.mu
func (o *Owner) collect() {
	messages, events := o.book.Take()
	for _, e := range events {
		o.happened(e)
	}
	if len(messages) > 0 && len(o.outbox) == 0 && o.opt.Linger > 0 {
		o.keep = o.opt.Now() + o.opt.Linger
	}
	o.outbox = append(o.outbox, messages...)
	o.book.giveMemory(messages)
	if next, ok := o.next(); ok && next < o.armed {
		o.armed = next
		o.poke()
	}
}

// next returns when there is something to do for the owner's goroutine, and whether
// there is.
//
// +checklocks:o.mu
func (o *Owner) next() (time.Duration, bool) {
	next, ok := o.book.Next()
	if len(o.outbox) > 0 && !o.sending && !o.pressing() && (!ok || o.keep < next) {
		return o.keep, true
	}
	return next, ok
}

// poke wakes the owner's goroutine.
func (o *Owner) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// flush sends the messages there are if one is pressing, or leaves it to who is
// sending. It lets the lock go meanwhile.
//
// +checklocks:o.mu
func (o *Owner) flush() {
	if o.sending || !o.pressing() {
		return
	}
	o.sending = true
	if o.up != nil && len(o.calls) > 1 {
		// Others ask at the same time, and may be about to again: that goes along.
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	for len(o.outbox) > 0 {
		out := o.outbox
		o.outbox, o.spare = o.spare, nil
		up := o.up
		peers := o.peers[:0]
		for _, m := range out {
			peers = append(peers, o.debtors[m.To])
		}
		creditor := OwnerID(0)
		if o.book.up != nil {
			creditor = o.book.up.id
		}
		o.mu.Unlock()
		for i := 0; i < len(out); {
			n := 1
			switch { // what is for a debtor that is gone goes nowhere
			case peers[i] != nil:
				peers[i].peer.Deliver(out[i])
			case up != nil && out[i].To == creditor:
				for i+n < len(out) && peers[i+n] == nil && out[i+n].To == creditor {
					n++
				}
				up.send(out[i : i+n])
			}
			i += n
		}
		o.mu.Lock()
		o.spare = reuse(out)
		if clear(peers); cap(peers) <= reuseMost {
			o.peers = peers
		}
	}
	o.sending = false
	o.sent.Broadcast()
}
