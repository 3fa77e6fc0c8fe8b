package client

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// MaxDepth is the greatest depth of a [Queue].
const MaxDepth = ring.MaxEntries

// defaultDepth is QueueOptions.Depth when it is 0.
const defaultDepth = 64

// QueueOptions are the options of a queue.
type QueueOptions struct {
	// Depth is how many operations may be under way, 1 to MaxDepth; it is
	// rounded up to a power of two. 0: 64.
	Depth int
}

// Queue reads, writes, appends and commits without waiting: operations are put into a
// ring of the queue's own, and their completions are reaped later, many at a
// time. Data lies in buffers, see [Conn.Borrow]; nothing is copied and, on the
// usual path, nothing allocated and no lock taken that others take.
//
//	q, err := c.NewQueue(ctx, client.QueueOptions{Depth: 32})
//	b, err := c.Borrow(ctx, 4096)
//	err = q.Read(m, b, off, 7) // EAGAIN: full, reap first
//	q.Submit()
//	var done [32]client.Completion
//	n, err := q.Reap(ctx, 1, done[:]) // done[0].User is 7
//	err = q.Close()
//
// A queue is for one goroutine at a time, all its methods. There are at most 7
// queues on a connection. The objects, appenders and buffers that it is given
// are of the same connection: EINVAL. When that breaks everything under way is
// completed, as [Conn]'s calls are that are not made again, and the queue is of
// no more use: EBADF.
//
// Writes of one mblock, and appends to one log, are done in the order in which
// the queue was given them; with what other queues and callers do meanwhile
// there is no order. When a write fails, those that were given before its
// completion was reaped fail too, as does a commit, with ESTATE, or with EIO if its
// device failed it: none takes its place. If any was, the mblock can only be aborted.
//
// There is no deadline for an operation: a context ends the wait for
// completions, not what is waited for.
type Queue struct {
	ringEnd
	c       *Conn
	mem     *region
	slots   []queueSlot
	free    []uint16
	flight  int // operations that are given and not reaped
	unsaid  int // of those, the ones that came after the last Submit
	closed  bool
	watched <-chan struct{} // of the context that wakes it, or nil
	unwatch func() bool
	spins   spinning
	breath  breath

	woken atomic.Bool // what mu guards was added to

	mu sync.Mutex
	// +checklocks:mu
	failures []failure // answers on the socket, not looked at
	// +checklocks:mu
	dead error
	// +checklocks:mu
	orphan bool // closed, and the daemon may still use what it holds
	// +checklocks:mu
	ended bool // the memory may not be there any more
}

// queueSlot is one operation of a queue, or none.
type queueSlot struct {
	tag    uint64 // 0: none
	user   uint64
	op     ioctl.Op
	length uint32
	buf    *Buffer
	m      *mblock   // of a read, a write or a commit
	a      *appender // of an append or a sync
	write  uint64    // the how-manieth of the mblock

	p        *pool // of an allocation
	capacity int64 // the same, in bytes
}

// failure is an error message.
type failure struct {
	tag uint64
	op  ioctl.Op
	err error
}

// Completion says how an operation ended.
type Completion struct {
	User   uint64 // as it was given
	N      int    // bytes moved
	Record uint64 // number of the record that was appended
	Err    error  // as the blocking call's; io.EOF is none: see EOF
	EOF    bool   // the read met the object's end

	Mblock api.Mblock // that was allocated or put, with its handle; or nil
}

const opQueue = "queue"

// NewQueue makes a queue on the connection that there is. Errors: EINVAL (the
// depth), EAGAIN (too many queues, or no memory for the ring), ENOTSUP (the
// daemon has no rings). Close must be called in the end.
func (c *Conn) NewQueue(ctx context.Context, o QueueOptions) (*Queue, error) {
	if o.Depth == 0 {
		o.Depth = defaultDepth
	}
	if o.Depth < 1 || o.Depth > MaxDepth {
		return nil, api.Errorf(api.EINVAL, opQueue, "a queue of depth %d: want 1 to %d", o.Depth, MaxDepth)
	}
	entries := max(1<<bits.Len(uint(o.Depth-1)), ring.MinEntries)
	var q *Queue
	err := c.run(ctx, ioctl.OpRing, again, func(l *link) (err error) {
		q, err = l.newQueue(ctx, entries)
		return err
	})
	if err != nil {
		return nil, err
	}
	q.c = c
	return q, nil
}

func (l *link) newQueue(ctx context.Context, entries int) (*Queue, error) {
	mem, err := l.borrow(ctx, ring.Size(entries))
	if err != nil {
		return nil, err
	}
	clear(mem.mem)
	end, err := l.askRing(ctx, mem, entries)
	if err != nil {
		// If it may have been made the memory is the ring's till the end.
		if e := lostIn(err); e == nil && !errors.Is(err, api.ETIMEDOUT) && !errors.Is(err, api.ECANCELED) {
			mem.drop()
		}
		return nil, err
	}
	q := &Queue{ringEnd: end, mem: mem, slots: make([]queueSlot, entries)}
	q.spins.init()
	for i := range entries {
		q.free = append(q.free, uint16(entries-1-i))
	}
	if q.index, err = l.addRing(q); err != nil {
		if q.close(ctx) == nil {
			mem.drop()
		}
		return nil, err
	}
	return q, nil
}

// ready refuses an operation of a queue that is closed, in a child, or full.
func (q *Queue) ready(op ioctl.Op) error {
	switch {
	case q.closed:
		return api.Errorf(api.EBADF, op.Name(), "the queue was closed")
	case !q.l.mark.here():
		return foreign(op.Name(), q.l.pid)
	case q.l.over.Load():
		return stale(op)
	case len(q.free) == 0:
		return api.Errorf(api.EAGAIN, op.Name(), "%d operations are under way, as many as the queue's depth: reap some", len(q.slots))
	}
	return nil
}

// take takes a buffer for an operation.
func (q *Queue) take(op ioctl.Op, b *Buffer) error {
	if err := b.check(op, q.l); err != nil {
		return err
	}
	return b.use(op)
}

// alien is the error of an operation on what is not of the queue's connection.
func alien(op ioctl.Op) error {
	return api.Errorf(api.EINVAL, op.Name(), "the object is not of the queue's connection")
}

// Read reads up to b.Len() bytes at off. See [api.Mblock.ReadAtContext].
func (q *Queue) Read(m api.Mblock, b *Buffer, off int64, user uint64) error {
	const op = ioctl.OpMblockRead
	if err := q.ready(op); err != nil {
		return err
	}
	x, err := q.own(op, m)
	if err != nil {
		return err
	}
	if err := x.live(op); err != nil {
		return err
	}
	if err := q.take(op, b); err != nil {
		return err
	}
	d := ring.Descriptor{Op: uint16(op), Handle: uint64(x.h), Offset: off}
	q.put(&d, b, queueSlot{user: user, op: op, m: x})
	return nil
}

// Write appends b.Len() bytes to an uncommitted mblock. See [api.Mblock.Write].
func (q *Queue) Write(m api.Mblock, b *Buffer, user uint64) error {
	const op = ioctl.OpMblockWrite
	if err := q.ready(op); err != nil {
		return err
	}
	x, err := q.own(op, m)
	if err != nil {
		return err
	}
	if err := x.sound(op); err != nil {
		return err
	}
	if err := q.take(op, b); err != nil {
		return err
	}
	d := ring.Descriptor{Op: uint16(op), Flags: ring.FlagChained, Handle: uint64(x.h), Offset: x.failed.Load()}
	q.put(&d, b, queueSlot{user: user, op: op, m: x, write: x.begun.Add(1)})
	return nil
}

// Append appends a record of b.Len() bytes, which with sync is durable when it
// is completed. See [api.Appender]. The completion has its number.
func (q *Queue) Append(a api.Appender, b *Buffer, sync bool, user uint64) error {
	const op = ioctl.OpAppend
	x, err := q.appender(op, a)
	if err != nil {
		return err
	}
	if err := q.take(op, b); err != nil {
		return err
	}
	if n := b.Len(); n > api.MaxRecord {
		b.done()
		return tooLong(op, n)
	}
	d := ring.Descriptor{Op: uint16(op), Handle: uint64(x.h)}
	if sync {
		d.Flags = ring.FlagSync
	}
	q.put(&d, b, queueSlot{user: user, op: op, a: x})
	return nil
}

// Sync makes durable what was appended before. See [api.Appender].
func (q *Queue) Sync(a api.Appender, user uint64) error {
	const op = ioctl.OpSync
	x, err := q.appender(op, a)
	if err != nil {
		return err
	}
	d := ring.Descriptor{Op: uint16(op), Handle: uint64(x.h)}
	q.put(&d, nil, queueSlot{user: user, op: op, a: x})
	return nil
}

func (q *Queue) appender(op ioctl.Op, a api.Appender) (*appender, error) {
	if err := q.ready(op); err != nil {
		return nil, err
	}
	x, ok := a.(*appender)
	if !ok || x.l != q.l {
		return nil, alien(op)
	}
	return x, x.live(op)
}

// put puts an operation into the ring.
func (q *Queue) put(d *ring.Descriptor, b *Buffer, s queueSlot) {
	i := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	if b != nil && b.Len() > 0 {
		w := b.window(0, b.Len())
		d.Arena, d.Window, d.Length = w.Arena, w.Offset, w.Length
	}
	d.Tag = q.tag(int(i))
	s.tag, s.buf, s.length = d.Tag, b, d.Length
	q.slots[i] = s
	q.flight++
	q.unsaid++
	if !q.end.Put(d) {
		panic("client: more operations than entries in a queue's ring")
	}
}

// Submit lets the daemon know of the operations that were given since the last
// Submit. It may have begun them before. Reap does the same when it waits.
func (q *Queue) Submit() {
	if q.unsaid > 0 && !q.closed && q.l.mark.here() {
		q.unsaid = 0
		q.end.Bell()
	}
}

// Flight returns how many operations are given and not reaped.
func (q *Queue) Flight() int { return q.flight }
