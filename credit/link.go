package credit

import "time"

// resendMost bounds how many messages that were sent again wait for their acknowledgement.
// Of so many it comes at once, and then the next ones go.
const resendMost = owesMost

// unackedMost is Config.MaxUnacked for each of MaxRequests when it is 0.
const unackedMost = 16

// unheardMost is how many messages to the creditor may be unacknowledged before nothing more
// is asked of it, for each of Config.MaxUnacked.
const unheardMost = 4

// link makes of messages that may be lost, doubled and overtaken a sequence in
// each direction. It belongs to one session.
//
// What waits for its acknowledgement is bounded by what the session holds and
// asks for: a debtor's requests ([Config.MaxRequests]) and resources. Of a debtor
// that acknowledges nothing, nothing is taken after a while.
type link struct {
	sent    uint64        // the last number given
	taken   uint64        // the last number that was taken
	unacked []Message     // rising, without gaps, up to sent
	owes    int           // messages that came and are not acknowledged
	due     time.Duration // when that is to be done; 0: nothing came but what is to be acknowledged at once
	again   time.Duration // when to send again what is not acknowledged; put off by each acknowledgement
	next    uint64        // the first one that is not sent again yet while those before it are; 0: none are
}

// number puts m in the sequence, and says whether to send it now: not while those before
// it are being sent again, without which it would be nothing to the other side.
func (l *link) number(m *Message, now, retry time.Duration) bool {
	l.sent++
	m.Seq, m.Ack, m.Seen = l.sent, l.taken, l.taken
	if len(l.unacked) == 0 {
		l.again = now + retry
	}
	l.unacked = append(l.unacked, *m)
	l.unacked[len(l.unacked)-1].Limit = nil // what is kept of a debtor is bounded
	l.paid()
	return l.next == 0
}

// owesMost is how many messages may wait to be acknowledged with the next message:
// well below silentMost and what a resend has.
const owesMost = 16

// owe says whether to acknowledge now what m, which was handled, is the last of. If
// not, it is done with the next message, or when it is due.
func (l *link) owe(m *Message, next bool, now, wait time.Duration) bool {
	if l.owes == 0 || m.Seq == 0 {
		return false
	}
	if wait <= 0 || !next || m.Kind != Grant && m.Kind != Return || l.owes >= owesMost {
		return true
	}
	if l.due == 0 {
		// One moment for all sides, so that a creditor of many wakes up once for them.
		l.due = now.Truncate(wait) + 2*wait
	}
	return false
}

// paid notes that a message acknowledges what came.
func (l *link) paid() { l.owes, l.due = 0, 0 }

// take looks at what m says of the sequences and returns whether m is to be
// handled now: it is not numbered, or it is the next, and fewer than most
// messages of this side wait for their acknowledgement.
func (l *link) take(m *Message, most int) bool {
	n := 0
	for n < len(l.unacked) && l.unacked[n].Seq <= m.Ack {
		n++
	}
	if n == len(l.unacked) {
		l.unacked = reuse(l.unacked)
	} else {
		l.unacked = l.unacked[n:]
	}
	if m.Seq == 0 {
		return true
	}
	l.owes++
	if m.Seq != l.taken+1 || len(l.unacked) >= most {
		return false
	}
	l.taken++
	return true
}

// acked returns the last number of this side that was taken on the other.
func (l *link) acked() uint64 {
	if len(l.unacked) == 0 {
		return l.sent
	}
	return l.unacked[0].Seq - 1
}

// resend calls send for what is to be sent again, if it is time.
func (l *link) resend(now, retry time.Duration, send func(Message)) {
	if len(l.unacked) > 0 && now >= l.again {
		l.sendAgain(l.unacked[0].Seq, now, retry, send)
	}
}

// progress looks whether messages after heard are acknowledged. If they were sent again, the
// next ones are.
func (l *link) progress(heard uint64, now, retry time.Duration, send func(Message)) {
	acked := l.acked()
	if acked == heard {
		return
	}
	l.again = now + retry
	switch {
	case acked == l.sent:
		l.next = 0
	case l.next != 0:
		l.sendAgain(max(l.next, acked+1), now, retry, send)
	}
}

// sendAgain calls send for those of the first ones that are not acknowledged that are not
// before from.
func (l *link) sendAgain(from uint64, now, retry time.Duration, send func(Message)) {
	first := l.unacked[0].Seq
	n := min(len(l.unacked), resendMost)
	for _, m := range l.unacked[from-first : n] {
		m.Ack = l.taken
		send(m)
		l.paid()
	}
	l.again, l.next = now+retry, 0
	if n < len(l.unacked) {
		l.next = l.unacked[n].Seq
	}
}

// isDue says whether to acknowledge now, by a message of its own.
func (l *link) isDue(now time.Duration) bool { return l.due != 0 && now >= l.due }

// schedule says when there is something to do.
func (l *link) schedule(at func(time.Duration)) {
	if len(l.unacked) > 0 {
		at(l.again)
	}
	at(l.due)
}

// reuseMost is how many messages memory is kept for that are not there any more.
const reuseMost = 16

// reuse empties a list of messages, and keeps its memory if that is little.
func reuse(list []Message) []Message {
	if cap(list) > reuseMost {
		return nil
	}
	clear(list)
	return list[:0]
}
