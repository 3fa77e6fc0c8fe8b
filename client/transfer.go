package client

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// ahead is how many pieces of one transfer are under way at most.
const ahead = 4

// errNoRegion is returned when the daemon has no memory to share for a transfer,
// of which nothing is under way: it goes over the socket.
var errNoRegion = errors.New("no memory for a transfer over the ring")

// transfer is one read or write over the ring, in pieces of at most chunk bytes,
// of which a few are under way at once. Only the first is waited for room with:
// who holds some and waits for more may wait for one who does the same.
type transfer struct {
	r    *sharedRing
	w    *caller
	h    *handle
	op   ioctl.Op
	m    memory
	off  int64 // into the object of a read
	sent int   // bytes of m

	under [ahead]*slot // under way, the oldest at first
	first int
	n     int
	gone  bool // a piece's answer did not come in time: no other is waited for
}

func (t *transfer) piece(i int) *slot { return t.under[(t.first+i)%ahead] }

// begin begins the next piece. It returns false if there is no room, and an
// error if it was not begun.
func (t *transfer) begin(ctx context.Context) (bool, error) {
	n := min(t.m.n-t.sent, chunk)
	q := request{Descriptor: ring.Descriptor{Op: uint16(t.op), Handle: uint64(t.h.h), Length: uint32(n)}}
	q.Offset = t.off + int64(t.sent)
	if t.op == ioctl.OpMblockWrite {
		q.Offset = int64(t.m.n - t.sent) // all that follows, with it
	}
	wait := t.n == 0
	q.last = wait && t.sent+n == t.m.n
	if ok, err := t.place(ctx, &q, n, wait); !ok {
		return false, err
	}
	s, err := t.r.begin(ctx, t.w, &q, wait)
	if s == nil {
		return false, err
	}
	t.under[(t.first+t.n)%ahead] = s
	t.n++
	t.sent += n
	return true, nil
}

// place finds the memory of a piece, and fills it if it is to be written. It
// returns false without an error if there is none now.
func (t *transfer) place(ctx context.Context, q *request, n int, wait bool) (bool, error) {
	switch {
	case n == 0:
		return true, nil
	case t.m.b != nil:
		w := t.m.b.window(t.sent, n)
		q.Arena, q.Window = w.Arena, w.Offset
		q.lent = t.m.b.again()
		return true, nil
	case n <= page:
		if t.op == ioctl.OpMblockWrite {
			q.data = t.m.p[t.sent : t.sent+n]
		}
		return true, nil
	}
	if !wait {
		q.hold = t.r.l.arenas.try(n)
	} else {
		var err error
		if q.hold, err = t.r.l.region(ctx, t.op, n); errors.Is(err, api.ENOMEM) {
			return false, errNoRegion
		} else if err != nil {
			return false, err
		}
	}
	if q.hold == nil {
		return false, nil
	}
	w := q.hold.window(n)
	q.Arena, q.Window = w.Arena, w.Offset
	if t.op == ioctl.OpMblockWrite {
		copy(q.hold.mem, t.m.p[t.sent:t.sent+n])
	}
	return true, nil
}

// next waits for the oldest piece's answer. at is where its data begins in
// memory; for a read it is there when next returns.
func (t *transfer) next(ctx context.Context, at int) (ring.Completion, error) {
	s := t.piece(0)
	t.first = (t.first + 1) % ahead
	t.n--
	if t.gone {
		if t.r.abandon(s) {
			return ring.Completion{}, overdue(ctx, t.op)
		}
	} else if err := t.r.await(ctx, t.w, s); err != nil {
		t.gone = true
		return ring.Completion{}, err
	}
	defer t.r.finish(s)
	c, err := s.answer(ctx)
	if err == nil && t.op == ioctl.OpMblockRead && t.m.b == nil {
		from := s.page
		if s.hold != nil {
			from = s.hold.mem
		}
		copy(t.m.p[at:], from[:c.N])
	}
	return c, err
}

// end waits for what is still under way, and says whether any of it was or may
// have been done.
func (t *transfer) end(ctx context.Context) (some bool) {
	t.op = ioctl.OpMblockWrite // nothing is copied any more
	for t.n > 0 {
		_, err := t.next(ctx, 0)
		some = some || err == nil || api.CodeOf(err) == api.EUNKNOWN
	}
	return some
}

// fill begins pieces up to a number under way. An error is that of a piece
// before which nothing is under way.
func (t *transfer) fill(ctx context.Context, most int) error {
	for t.n < most && (t.sent < t.m.n || t.m.n == 0) {
		ok, err := t.begin(ctx)
		if err != nil && t.n == 0 {
			return err
		}
		if !ok || t.m.n == 0 {
			break
		}
	}
	return nil
}

// read reads what is not done yet, and says whether it met the end.
func (r *sharedRing) read(ctx context.Context, h *handle, to memory, off int64, done *int) (eof bool, err error) {
	if !r.l.mark.here() {
		return false, foreign(ioctl.OpMblockRead.Name(), r.l.pid)
	}
	t := transfer{r: r, w: getCaller(), h: h, op: ioctl.OpMblockRead, m: to, off: off, sent: *done}
	defer putCaller(t.w)
	defer t.end(ctx)
	for {
		if err := t.fill(ctx, ahead); err != nil {
			return false, err
		}
		want := min(to.n-*done, chunk)
		c, err := t.next(ctx, *done)
		if err != nil {
			return false, err
		}
		*done += int(c.N)
		switch eof := c.Flags&ring.FlagEOF != 0; {
		case eof || *done == to.n:
			return eof, nil
		case c.N == 0:
			return false, readNothing()
		case int(c.N) < want:
			t.end(ctx) // the others are not where the next bytes go
			t.op, t.sent = ioctl.OpMblockRead, *done
		}
	}
}

// write writes what is not done yet. Pieces are written in their order. As long
// as it is not known that all of it fits, no other piece is begun before the
// first was taken: it may be refused, and the others not.
func (r *sharedRing) write(ctx context.Context, m *mblock, from memory, done *int) error {
	if !r.l.mark.here() {
		return foreign(ioctl.OpMblockWrite.Name(), r.l.pid)
	}
	t := transfer{r: r, w: getCaller(), h: &m.handle, op: ioctl.OpMblockWrite, m: from, sent: *done}
	defer putCaller(t.w)
	most := 1
	if m.fits(from.n) {
		most = ahead
	}
	for {
		if err := t.fill(ctx, most); err != nil {
			return m.orStale(t.op, err)
		}
		want := min(from.n-*done, chunk)
		c, err := t.next(ctx, *done)
		if err == nil && int(c.N) != want {
			err = shortWrite(c.N, want)
		}
		if err != nil {
			if t.end(ctx) {
				m.lost.Store(true)
			}
			return err
		}
		*done += want
		if *done == from.n {
			return nil
		}
		most = ahead
	}
}

// append makes a request that carries a record over the ring.
func (r *sharedRing) append(ctx context.Context, h *handle, op ioctl.Op, record []byte, sync bool, reply ioctl.Message) error {
	q := request{Descriptor: ring.Descriptor{Op: uint16(op), Handle: uint64(h.h), Length: uint32(len(record))}}
	if sync {
		q.Flags = ring.FlagSync
	}
	if len(record) <= page {
		q.data = record
	} else {
		hold, err := r.l.region(ctx, op, len(record))
		if errors.Is(err, api.ENOMEM) {
			return errNoRegion
		}
		if err != nil {
			return h.orStale(op, err)
		}
		copy(hold.mem, record)
		w := hold.window(len(record))
		q.Arena, q.Window, q.hold = w.Arena, w.Offset, hold
	}
	return h.orStale(op, r.one(ctx, &q, func(_ *slot, c ring.Completion) {
		if m, ok := reply.(*ioctl.Appended); ok {
			*m = appended(c)
		}
	}))
}

// appended is a completion as the answer to an append.
func appended(c ring.Completion) ioctl.Appended {
	return ioctl.Appended{Record: c.A, Records: c.A + 1, Bytes: int64(c.B)}
}
