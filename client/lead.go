package client

import (
	"context"
	"runtime"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// await waits until a slot has its answer, which the caller reads before it
// calls finish. When the context ends first, and the daemon does not answer
// within a moment more, it returns an error and the slot is not the caller's any
// more: what it holds is kept until the answer comes.
func (r *sharedRing) await(ctx context.Context, w *caller, s *slot) error {
	if r.wait(ctx, w, s) {
		return nil
	}
	r.l.out.try(ioctl.Header{Op: ioctl.OpCancel}, &ioctl.Cancel{Tag: s.tagNow(r)})
	moment, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	op := s.op // of a slot that may be another's soon
	if r.wait(moment, w, s) {
		return nil
	}
	if left := allocates(op) && r.follow(s) || r.abandon(s); !left {
		return nil
	}
	return overdue(ctx, op)
}

// tagNow returns a slot's tag, or 0 if it was answered.
func (s *slot) tagNow(r *sharedRing) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.tag
}

// abandon leaves a slot to its answer; false: that is there.
func (r *sharedRing) abandon(s *slot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.done.Load() {
		return false
	}
	s.late, s.who = true, nil
	r.inside--
	r.unmapIdle()
	return true
}

// wait waits until a slot has its answer; false: the context has ended.
func (r *sharedRing) wait(ctx context.Context, w *caller, s *slot) bool {
	for {
		if r.park(w, s) {
			select {
			case <-w.wake:
			case <-ctx.Done():
				r.unpark(w)
			}
		}
		switch {
		case w.leads:
			return r.lead(ctx, w, s)
		case s.done.Load():
			return true
		case ctx.Err() != nil:
			return false
		}
	}
}

// park puts a caller among the followers, unless it is there, the answer is, or
// it is to lead. It says whether there is a token to wait for.
func (r *sharedRing) park(w *caller, s *slot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case w.want == s && (w.parked || len(w.wake) > 0):
		return true // since its request was put
	case w.leads || s.done.Load():
		return false
	}
	w.want, s.who = s, w
	if r.leader == nil {
		r.leader, w.leads = w, true
		return false
	}
	r.parked.push(w)
	return true
}

// unpark takes a caller from among the followers. Afterwards it has no token.
func (r *sharedRing) unpark(w *caller) {
	r.mu.Lock()
	was := w.parked
	if was {
		r.parked.remove(w)
	}
	r.mu.Unlock()
	if !was {
		<-w.wake
	}
}

// lead takes the answers for all until the leader's own is there, or its
// context ends: then it returns false. Another one leads from then on.
func (r *sharedRing) lead(ctx context.Context, w *caller, s *slot) bool {
	stop := func() bool { return true }
	defer func() { stop() }()
	watched, yielded := ctx.Done() == nil, false
	for {
		if r.end.Ready() || r.over.Load() || s.done.Load() || ctx.Err() != nil {
			if over, answered := r.reap(ctx, w, s); over {
				return answered
			}
			yielded = false
		}
		// Those who were served first put their next requests in, and then
		// there may be answers. To yield wakes a thread, which who is alone can
		// do without.
		if !yielded {
			yielded = true
			if r.shared() {
				runtime.Gosched()
				continue
			}
		}
		if r.spins.able && r.few() && r.spins.spin(r.end) {
			continue
		}
		if !watched {
			watched, stop = true, context.AfterFunc(ctx, func() { r.wakeLeader(w) })
		}
		r.end.Doze(1)
		if r.over.Load() || s.done.Load() || ctx.Err() != nil {
			r.end.Stay()
			continue
		}
		r.end.Sleep(-1)
		yielded = false
		r.breath.take()
	}
}

// wakeLeader ends the leader's sleep if it is this one. The memory is mapped as
// long as there is a leader.
func (r *sharedRing) wakeLeader(w *caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leader == w {
		r.end.Wake()
	}
}

// reap takes all answers that there are. If the leader's is among them, or its
// context has ended, it hands over and returns true, and whether it has its
// answer.
func (r *sharedRing) reap(ctx context.Context, w *caller, s *slot) (over, answered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take()
	if r.dead != nil {
		r.bury()
	}
	answered = s.done.Load()
	if !answered && ctx.Err() == nil {
		return false, false
	}
	w.leads = false
	r.leader = nil
	if next := r.parked.last; next != nil {
		r.parked.remove(next)
		r.leader, next.leads = next, true
		next.wake <- struct{}{}
	}
	return true, answered
}

// take takes the answers in the ring.
//
// +checklocks:r.mu
func (r *sharedRing) take() {
	var c ring.Completion
	for r.end.Take(&c) {
		i := slotOf(c.Tag)
		if i >= len(r.slots) {
			continue // nobody's
		}
		if s := &r.slots[i]; s.tag != 0 && s.tag == c.Tag && uint16(s.op) == c.Op {
			s.c = c
			r.settle(s)
		}
	}
}

// settle says that a slot has its answer.
//
// +checklocks:r.mu
func (r *sharedRing) settle(s *slot) {
	s.tag = 0
	if s.late {
		s.hold.release()
		s.lent.done()
		if s.buf != nil {
			putBuffer(s.buf)
		}
		r.recycle(s)
		return
	}
	s.done.Store(true)
	if w := s.who; w != nil && w.parked && w.want == s {
		r.parked.remove(w)
		w.wake <- struct{}{}
	}
}

// failed implements [ringUser].
func (r *sharedRing) failed(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n int) bool {
	i := slotOf(h.Tag)
	r.mu.Lock()
	defer r.mu.Unlock()
	if i >= len(r.slots) {
		return false
	}
	s := &r.slots[i]
	if s.tag == 0 || s.tag != h.Tag || s.op != h.Op {
		return false
	}
	s.buf, s.size = buf, n
	leads := r.leader != nil && s.who == r.leader
	r.settle(s)
	if leads {
		r.end.Wake()
	}
	return true
}

// die implements [ringUser]. What was answered in the ring before is answered.
func (r *sharedRing) die(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil {
		return
	}
	if r.leader == nil {
		r.take()
	}
	r.dead = cause
	r.over.Store(true)
	if r.leader != nil {
		r.end.Wake() // it takes what there is, and buries
	} else {
		r.bury()
	}
	for _, w := range r.queue {
		w.wake <- struct{}{}
	}
	r.queue = nil
	r.unmapIdle()
}

// bury ends all requests that have no answer: there will be none.
//
// +checklocks:r.mu
func (r *sharedRing) bury() {
	for i := range r.slots {
		s := &r.slots[i]
		s.late = s.late || s.kept
		switch {
		case s.tag != 0:
			s.err = r.dead
			r.settle(s)
		case s.kept:
			r.settle(s) // it was answered, and is given back
		}
	}
}

// callers is a list of callers.
type callers struct{ first, last *caller }

func (l *callers) push(w *caller) {
	w.parked = true
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
}

func (l *callers) remove(w *caller) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.parked, w.prev, w.next = false, nil, nil
}

// overdue is the error of a request whose answer did not come in time.
func overdue(ctx context.Context, op ioctl.Op) error {
	e := expired(ctx, op.Name())
	if op.Mutates() {
		return &api.Error{Code: api.EUNKNOWN, Op: e.Op, Err: e, Detail: "the daemon did not say in time whether it was done"}
	}
	return e
}

// few says whether very little is under way.
func (r *sharedRing) few() bool { return r.used() <= spinFew }

// shared says whether others than the leader use the ring.
func (r *sharedRing) shared() bool { return r.used() > 1 }

// used returns how many requests are under way, or have answers that nobody has
// read yet.
func (r *sharedRing) used() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.slots) - len(r.free)
}
