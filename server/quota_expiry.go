package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/mpool-go/mpool/quota"
)

// expirer ends reservations whose time is over, until close.
func (q *quotas) expirer() {
	defer close(q.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		q.mu.Lock()
		next, l := q.soonest, q.ledger
		q.mu.Unlock()
		wait := time.Hour
		if !next.IsZero() {
			wait = min(max(next.Sub(q.srv.clock.Now()), 0)+10*time.Millisecond, wait)
		}
		timer.Reset(wait)
		select {
		case <-q.stop:
			return
		case <-q.wake:
			continue
		case <-timer.C:
		}
		if next.IsZero() {
			continue
		}
		q.expire(l)
		timer.Reset(expiryPause) // what is below may keep it: not at once again
		select {
		case <-q.stop:
			return
		case <-timer.C:
		}
	}
}

// expire ends what is over and looks what is next.
func (q *quotas) expire(l *quota.Ledger) {
	ctx, cancel := context.WithTimeout(q.srv.hard, 30*time.Second)
	defer cancel()
	// Those that come from now on count by themselves.
	q.mu.Lock()
	st := q.store
	q.soonest = time.Time{}
	q.mu.Unlock()
	_, err := l.Expire(ctx)
	if err == nil && st != nil {
		err = st.View(ctx, func(r quota.Reader) { q.next(r.NextExpiry()) })
	}
	if err != nil {
		q.srv.log.Warn("cannot end reservations", slog.String("pool", q.home.title()), slog.Any("error", err))
		q.next(q.srv.clock.Now().Add(time.Minute), true)
	}
}

// next says when the next reservation ends, if it is sooner than what is known.
func (q *quotas) next(at time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ok && (q.soonest.IsZero() || at.Before(q.soonest)) {
		q.soonest = at
	}
}
