package client

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// Reap puts completions into out and returns how many. It waits until there are
// least, or as many as out holds, or as are under way; 0: it does not wait. When
// the context ends first it returns what there is and the context's error, and
// the rest is reaped later.
func (q *Queue) Reap(ctx context.Context, least int, out []Completion) (int, error) {
	if q.closed {
		return 0, api.Errorf(api.EBADF, opQueue, "the queue was closed")
	}
	if !q.l.mark.here() {
		return 0, foreign(opQueue, q.l.pid)
	}
	least = min(least, len(out), q.flight)
	n := 0
	for {
		n += q.gather(out[n:])
		if n >= least {
			return n, nil
		}
		q.Submit()
		if ctx.Err() != nil {
			return n, expired(ctx, opQueue)
		}
		q.sleep(ctx, least-n)
	}
}

// gather takes completions that are there, to the end of out.
func (q *Queue) gather(out []Completion) int {
	n := 0
	if q.woken.Load() {
		n = q.gatherFailed(out)
	}
	var c ring.Completion
	for n < len(out) && q.end.Take(&c) {
		i := slotOf(c.Tag)
		if i >= len(q.slots) || q.slots[i].tag != c.Tag || q.slots[i].op != ioctl.Op(c.Op) {
			continue // nobody's
		}
		q.complete(i, &c, nil, &out[n])
		n++
	}
	if n < len(out) && q.flight > 0 && q.woken.Load() {
		n += q.bury(out[n:])
	}
	return n
}

// gatherFailed takes failures that are there.
func (q *Queue) gatherFailed(out []Completion) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, seen := 0, 0
	for _, f := range q.failures {
		if n == len(out) {
			break
		}
		seen++
		if i := slotOf(f.tag); q.slots[i].tag == f.tag && q.slots[i].op == f.op {
			q.complete(i, nil, f.err, &out[n])
			n++
		}
	}
	q.failures = append(q.failures[:0], q.failures[seen:]...)
	q.woken.Store(len(q.failures) > 0 || q.dead != nil)
	return n
}

// bury completes what there will be no answer to, once all answers were taken.
func (q *Queue) bury(out []Completion) int {
	q.mu.Lock()
	dead, some := q.dead, len(q.failures) > 0
	q.mu.Unlock()
	if dead == nil || some {
		return 0
	}
	n := 0
	for i := range q.slots {
		if s := &q.slots[i]; s.tag != 0 && n < len(out) {
			q.complete(i, nil, lost(s.op, dead), &out[n])
			n++
		}
	}
	return n
}

// complete ends an operation: by a completion, or by an error.
func (q *Queue) complete(i int, c *ring.Completion, err error, out *Completion) {
	s := q.slots[i]
	q.slots[i] = queueSlot{}
	q.free = append(q.free, uint16(i))
	q.flight--
	s.buf.done()
	*out = Completion{User: s.user, Err: err}
	if c != nil {
		switch {
		case allocates(s.op):
			out.Mblock = q.made(&s, c)
		case c.N > s.length || s.op == ioctl.OpMblockWrite && c.N != s.length:
			out.Err = api.Errorf(api.EPROTO, s.op.Name(), "the daemon moved %d bytes of %d asked for", c.N, s.length)
		case s.op == ioctl.OpAppend:
			m := appended(*c)
			s.a.answered(&m)
			out.N, out.Record = int(s.length), c.A
		default:
			out.N, out.EOF = int(c.N), c.Flags&ring.FlagEOF != 0
		}
	}
	if c == nil && s.op == ioctl.OpMblockWrite {
		s.m.failed.Add(1) // as the daemon counts
	}
	switch {
	case s.op == ioctl.OpObjectCommit:
		s.m.ahead.afresh()
	case out.Err == nil:
		if s.op == ioctl.OpMblockWrite {
			s.m.written.Add(int64(out.N))
		}
	case s.a != nil:
		out.Err = s.a.unknown(out.Err)
	case s.op == ioctl.OpMblockWrite && (s.m.begun.Load() != s.write || api.CodeOf(out.Err) == api.EUNKNOWN):
		s.m.lost.Store(true)
	}
}

// sleep waits until there are so many completions to gather, or a failure, or the
// context ends. It may return for no reason.
func (q *Queue) sleep(ctx context.Context, least int) {
	if q.flight <= spinFew && q.spins.spin(q.end) {
		return
	}
	q.watch(ctx)
	q.end.Doze(least)
	if q.woken.Load() || ctx.Err() != nil {
		q.end.Stay()
		return
	}
	q.end.Sleep(-1)
	q.breath.take()
}

// watch lets the end of a context wake the queue. The last one's stays watched:
// callers wait with the same one again and again.
func (q *Queue) watch(ctx context.Context) {
	done := ctx.Done()
	if done == q.watched {
		return
	}
	if q.unwatch != nil {
		q.unwatch()
	}
	q.watched, q.unwatch = done, nil
	if done != nil {
		q.unwatch = context.AfterFunc(ctx, q.wake)
	}
}

// wake wakes the queue's goroutine if it sleeps.
func (q *Queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeLocked()
}

// +checklocks:q.mu
func (q *Queue) wakeLocked() {
	if !q.ended {
		q.end.Wake()
	}
}

// failed implements [ringUser].
func (q *Queue) failed(h ioctl.Header, buf *[ioctl.MaxMessage]byte, n int) bool {
	if slotOf(h.Tag) >= len(q.slots) {
		return false
	}
	f := failure{tag: h.Tag, op: h.Op, err: decode(h, buf[ioctl.HeaderSize:n], nil)}
	q.mu.Lock()
	defer q.mu.Unlock()
	// A daemon that keeps to the protocol never has more to say.
	if len(q.failures) < len(q.slots) {
		q.failures = append(q.failures, f)
		q.woken.Store(true)
		q.wakeLocked()
	}
	return false // the buffer is not kept
}

// die implements [ringUser].
func (q *Queue) die(cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dead = cause
	q.woken.Store(true)
	if q.orphan {
		q.release()
	}
	q.wakeLocked()
}

// release gives back what a closed queue holds.
//
// +checklocks:q.mu
func (q *Queue) release() {
	q.ended = true
	for i := range q.slots {
		q.slots[i].buf.done()
	}
	q.mem.drop()
}

// Close ends the queue. It waits for what is under way, at most 10 s; its
// completions are lost, and mblocks that they would give are aborted or, if they are
// committed, given up, but for appends and writes whose outcome then is known to the
// appender and the mblock as if they had been reaped. If the time is up it returns
// ETIMEDOUT, and the buffers and the ring are given back when the connection ends.
// EBADF if it was closed before.
func (q *Queue) Close() error {
	if q.closed {
		return api.Errorf(api.EBADF, opQueue, "the queue was closed before")
	}
	if !q.l.mark.here() {
		return foreign(opQueue, q.l.pid)
	}
	ctx, cancel := polite()
	defer cancel()
	var out [64]Completion
	var err error
	for q.flight > 0 && err == nil {
		var n int
		n, err = q.Reap(ctx, 1, out[:])
		for _, c := range out[:n] {
			if c.Mblock != nil && c.Mblock.Abort(ctx) != nil {
				_ = c.Mblock.Put() //nolint:errcheck // it is committed, and stays; or went with its connection
			}
		}
	}
	q.closed = true
	if q.unwatch != nil {
		q.unwatch()
	}
	if err == nil {
		if err = q.close(ctx); lostIn(err) != nil {
			err = nil // it went with its connection
		}
	}
	q.mu.Lock()
	if q.orphan = err != nil && q.dead == nil; !q.orphan {
		q.release()
	}
	q.mu.Unlock()
	if err == nil {
		q.l.dropRing(q.index)
	}
	return err
}

var _ ringUser = (*Queue)(nil)
