package credit

import "time"

// resendMost bounds how many messages are sent again at once.
const resendMost = 16

// unackedMost is how many messages a debtor may leave unacknowledged, for each
// request that may wait, before nothing more is taken from it. Who is honest
// acknowledges what it has taken with each message.
const unackedMost = 16

// link makes of messages that may be lost, doubled and overtaken a sequence in
// each direction. It belongs to one session.
//
// What waits for its acknowledgement is bounded by what the session holds and
// asks for: a debtor's requests ([Config.MaxRequests]) and resources. Of a debtor
// that acknowledges nothing, nothing is taken after a while.
type link struct {
	sent    uint64    // the last number given
	taken   uint64    // the last number that was taken
	unacked []Message // rising, without gaps, up to sent
	owes    bool      // something came that is not acknowledged
	again   time.Duration
}

// number puts m in the sequence.
func (l *link) number(m *Message, now, retry time.Duration) {
	l.sent++
	m.Seq, m.Ack, m.Seen = l.sent, l.taken, l.taken
	if len(l.unacked) == 0 {
		l.again = now + retry
	}
	l.unacked = append(l.unacked, *m)
	l.owes = false
}

// take looks at what m says of the sequences and returns whether m is to be
// handled now: it is not numbered, or it is the next, and fewer than most
// messages of this side wait for their acknowledgement.
func (l *link) take(m *Message, most int) bool {
	n := 0
	for n < len(l.unacked) && l.unacked[n].Seq <= m.Ack {
		n++
	}
	if n == len(l.unacked) {
		l.unacked = nil
	} else {
		l.unacked = l.unacked[n:]
	}
	if m.Seq == 0 {
		return true
	}
	l.owes = true
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
	if len(l.unacked) == 0 || now < l.again {
		return
	}
	l.again = now + retry
	for _, m := range l.unacked[:min(len(l.unacked), resendMost)] {
		m.Ack = l.taken
		send(m)
	}
	l.owes = false
}
