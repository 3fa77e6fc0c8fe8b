package server

import (
	"errors"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/scope"
)

// What is kept of a debtor, in bytes: for each object of which it has something or waits
// for it, for each span of these, as it is held, asked for and called back, and for each
// message that it has not acknowledged.
const (
	loanBytes    = 1 << 10
	spanBytes    = 96
	messageBytes = 320
)

// creditRoom is the unit in which memory for what is kept of a debtor is reserved. Each
// has one from its Hello on.
const creditRoom = 64 << 10

// kept returns how many bytes are kept of the debtor.
func (l *creditLink) kept() int64 {
	f := l.c.root.Footprint(l.id)
	return int64(f.Loans+f.Requests)*loanBytes + int64(f.Spans)*spanBytes + int64(f.Messages)*messageBytes
}

// makeRoom reserves memory for a request of so many spans, or says that there is none,
// and whose limit that is.
func (l *creditLink) makeRoom(spans int) (credit.Code, *credit.Limit) {
	more := l.kept() + loanBytes + int64(spans)*spanBytes - l.room
	if more <= 0 {
		return 0, nil
	}
	more = (more + creditRoom - 1) / creditRoom * creditRoom
	if err := l.s.reserve(CreditBytes, more); err != nil {
		return credit.ErrLimit, limitOfScope(err)
	}
	l.room += more
	return 0, nil
}

// limitOfScope returns what an error says of the scope that refused.
func limitOfScope(err error) *credit.Limit {
	l, ok := errors.AsType[*scope.LimitError](err)
	if !ok {
		return nil
	}
	return &credit.Limit{Kind: l.Kind.String(), Name: l.Scope, Used: l.Used, Asked: l.Asked, Limit: l.Limit, Text: l.Error()}
}

// giveRoom gives memory back of which the debtor needs no more, but for what it will need
// next.
func (l *creditLink) giveRoom() {
	if l.room == creditRoom {
		return
	}
	if spare := (l.room - l.kept()) / creditRoom; spare > 1 || spare == 1 && l.room == 2*creditRoom {
		n := min(spare*creditRoom, l.room-creditRoom)
		l.room -= n
		l.s.unreserve(CreditBytes, n)
	}
}
