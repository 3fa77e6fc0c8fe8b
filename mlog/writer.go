package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// writer is the state of the log's writer: a task, or one of those who wait.
// The writer alone uses it; who becomes it holds the log's mutex and sees that
// there is none.
type writer struct {
	group   uint64 // number of the last group begun
	durable uint64 // number of the last one known durable
	prev    uint32 // CRC of the last durable final page
	pair    int    // where the next tail goes

	slot  []byte // memory of a pair; nil while there is no writer
	chunk []*chunk
	ops   []*bdev.Op
	used  int // of ops, in this group
	batch bdev.Batch
	told  []*waiter

	gather gather
}

// group is what one write and flush makes durable.
type group struct {
	from, to mark        // what becomes durable
	header   Header      // of the tail
	owes     bool        // the flush is to cover data, too ...
	owed     bdev.Ticket // ... of this ticket
}

// yieldMost bounds how often the writer lets those it has woken run before the
// next group.
const yieldMost = 4

// writeAt is the size of one write of final pages, in bytes.
const writeAt = 1 << 20

// wantLocked sees to it that the records below n become durable.
//
// +checklocks:l.mu
func (l *Log) wantLocked(n uint64) {
	l.want = max(l.want, n)
	l.startLocked()
}

// startLocked starts a writer task, or has the drive's write the log, unless there
// is a writer. It ends when there is nothing to write.
//
// +checklocks:l.mu
func (l *Log) startLocked() {
	if !l.writing && l.failed == nil && !l.abandoned {
		l.writing = true
		l.leaveLocked()
	}
}

// leaveLocked leaves the log's writing to the drive's writers, or to a task if there are
// none.
//
// +checklocks:l.mu
func (l *Log) leaveLocked() {
	if l.c.Writers != nil {
		l.c.Writers.add(l)
		return
	}
	l.c.Sched.Go("mlog writer", l.run)
}

// write is the writer task. It knows nothing of those who wait: its groups end
// whether or not anybody still does.
func (l *Log) write() { l.writeTo(^uint64(0)) }

// writeTo is write, but leaves the rest to others when n records are durable.
// Whoever calls it has set l.writing and cannot be called away.
func (l *Log) writeTo(n uint64) {
	if l.w.slot == nil {
		l.w.slot = bdev.AllocBuffer(PairPages * PageSize)
	}
	for served := false; ; {
		if !served { // who waits himself does not wait for others'
			l.w.gather.wait(l.c.Sched, l.waiting)
		}
		l.mu.Lock()
		clean, need := l.needLocked()
		if !need {
			break
		}
		if served {
			l.leaveLocked()
			l.mu.Unlock()
			return
		}
		g := l.beginLocked(clean)
		l.mu.Unlock()
		begun := l.c.Sched.Now()
		if crc, err := l.writeGroup(&g); err != nil {
			l.failGroup(&g, err)
		} else {
			l.w.prev = crc
			l.w.gather.took = l.c.Sched.Now().Sub(begun)
			if l.w.gather.woken = l.endGroup(&g); l.w.gather.woken {
				l.letIn()
			}
			served = g.to.records >= n
		}
	}
	l.restWriterLocked()
	l.mu.Unlock()
}

// restWriterLocked ends the writer, who has nothing to write.
//
// +checklocks:l.mu
func (l *Log) restWriterLocked() {
	if l.abandoned {
		l.giveUpLocked()
	}
	bdev.FreeBuffer(l.w.slot)
	l.w.slot = nil
	l.writing = false
	l.restLocked()
	l.idle.Broadcast()
}

// giveUpLocked tells those who still wait that nothing is written any more. There
// will be no others: the log is closing.
//
// +checklocks:l.mu
func (l *Log) giveUpLocked() {
	l.w.told = l.waiters.take(^uint64(0), l.w.told[:0])
	for _, w := range l.w.told {
		w.err = &api.Error{Code: api.EBADF, Op: "mlog sync", Object: l.c.ID, Detail: "the log was abandoned"}
	}
	l.mu.Unlock()
	l.tell()
	l.mu.Lock()
}

// restLocked frees what an idle log does not need, or a closed one.
//
// +checklocks:l.mu
func (l *Log) restLocked() {
	switch {
	case l.closing:
		l.images.release(^uint32(0))
	case l.failed == nil && l.pos.page == l.durable.pages:
		l.images.shrink(l.pos)
	}
}

// beginLocked takes everything that was appended so far into a group.
//
// +checklocks:l.mu
func (l *Log) beginLocked(clean bool) group {
	g := group{
		from: l.durable,
		to:   mark{pages: l.pos.page, records: l.records, bytes: l.bytes},
		header: Header{
			Flags: FlagTail, Used: uint16(l.pos.used), Birth: l.c.Birth,
			Generation: l.c.Generation, Epoch: l.c.Epoch,
			Group: l.w.group + 1, Durable: l.w.durable,
			First: l.records, Index: l.pos.page,
		},
	}
	if clean {
		g.header.Flags |= FlagClean
	}
	g.owes, g.owed, l.owes = l.owes, l.owed, false
	l.unsaid, l.say = g.to.records > g.from.records, false
	l.w.group++
	l.w.chunk = l.w.chunk[:0]
	for _, c := range l.images.chunks {
		if max(c.base, g.from.pages) < min(c.end(), g.to.pages) {
			l.w.chunk = append(l.w.chunk, c)
		}
	}
	if l.pos.used > 0 {
		c := l.images.find(l.pos.page)
		g.header.First = c.pages[l.pos.page-c.base].first
		copy(l.w.slot[HeaderSize:HeaderSize+l.pos.used], c.image(l.pos.page)[HeaderSize:])
	}
	l.flight = g.to.pages
	return g
}

// needLocked says whether a group is needed, and whether it is the one of a
// clean close.
//
// +checklocks:l.mu
func (l *Log) needLocked() (clean, need bool) {
	if l.failed != nil || l.abandoned {
		return false, false
	}
	clean = l.closing && l.dirty && l.durable.records == l.records
	return clean, clean || l.say || l.want > l.durable.records
}

// build makes a group's operations. It returns the CRC of the last full page.
func (l *Log) build(g *group) uint32 {
	l.w.used = 0
	crc := l.writeFull(g)
	page := l.w.slot[:PageSize]
	clear(page[HeaderSize+int(g.header.Used):])
	g.header.Prev = crc
	g.header.seal(page)
	copy(l.w.slot[PageSize:], page)
	l.op(l.c.pairOffset(l.w.pair)).Buf = l.w.slot
	return crc
}

// writeGroup writes a group and flushes it. It returns the CRC of the last full
// page.
func (l *Log) writeGroup(g *group) (uint32, error) {
	crc := l.build(g)
	ticket := l.c.Drive.Ticket()
	if g.owes {
		ticket = g.owed
	}
	l.w.batch.Ops = l.w.ops[:l.w.used]
	ctx := context.Background()
	if err := l.c.Drive.Run(ctx, &l.w.batch); err != nil {
		return 0, err
	}
	return crc, l.c.Drive.Flush(ctx, ticket)
}

// writeFull seals the group's full pages and makes the operations that write
// them. It returns the last one's CRC.
func (l *Log) writeFull(g *group) uint32 {
	crc := l.w.prev
	h := g.header
	h.Flags = 0
	var op *bdev.Op
	room := 0
	for _, c := range l.w.chunk {
		from, to := max(c.base, g.from.pages), min(c.end(), g.to.pages)
		for k := from; k < to; k++ {
			info := &c.pages[k-c.base]
			h.Used, h.First, h.Index, h.Prev = info.used, info.first, k, crc
			crc = h.seal(c.image(k))
		}
		size := int(to-from) * PageSize
		if room < size {
			op, room = l.op(offsetOf(l.c.Extent, from)), writeAt
		}
		at := int(from-c.base) * PageSize
		op.Vec = append(op.Vec, c.buf[at:at+size])
		room -= size
	}
	return crc
}

// op returns the next write of the group.
func (l *Log) op(offset int64) *bdev.Op {
	w := &l.w
	if w.used == len(w.ops) {
		w.ops = append(w.ops, new(bdev.Op))
	}
	o := w.ops[w.used]
	w.used++
	clear(o.Vec)
	o.Code, o.Offset, o.Buf, o.Vec = bdev.OpWrite, offset, nil, o.Vec[:0]
	return o
}

// endGroup makes it known that a group is durable. It says whether that woke a task.
func (l *Log) endGroup(g *group) (woken bool) {
	w := &l.w
	w.durable, w.pair = w.group, 1-w.pair
	if l.c.OnDurable != nil && g.to.records > g.from.records {
		l.c.OnDurable(g.to.records)
	}
	l.mu.Lock()
	l.durable = g.to
	l.stats.Groups++
	l.stats.Pages += uint64(g.to.pages - g.from.pages)
	if g.header.Clean() {
		l.dirty = false
	}
	l.images.release(g.to.pages)
	w.told = l.waiters.take(g.to.records, w.told[:0])
	l.idle.Broadcast()
	l.mu.Unlock()
	return l.tell()
}

// tell tells those whose wait is over. It says whether there are tasks among them,
// which it has woken.
func (l *Log) tell() (woken bool) {
	if len(l.w.told) == 0 {
		return false
	}
	others := len(l.w.told)
	for _, t := range l.w.told {
		if t.writes { // that is who runs here
			others--
		}
	}
	l.expect(-others)
	l.w.gather.expect = others
	called := l.w.told[:0]
	for _, t := range l.w.told {
		if t.call != nil {
			called = append(called, t) // before the next is overwritten
		}
		t.tell()
	}
	l.again(called)
	clear(l.w.told)
	return others > len(called)
}

// letIn lets the tasks run that were woken: what they append next goes into the next
// group, not into the one after it.
func (l *Log) letIn() {
	n := l.Records()
	for range yieldMost {
		l.c.Sched.Yield()
		was := n
		if n = l.Records(); n == was {
			break
		}
	}
}

// again keeps waiters that were called for use again.
func (l *Log) again(called []*waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range called {
		l.waiters.put(t)
	}
}

// failGroup poisons the log.
func (l *Log) failGroup(g *group, cause error) {
	l.mu.Lock()
	l.failed = cause
	l.failedEnd = g.to.records
	l.w.told = l.waiters.take(^uint64(0), l.w.told[:0])
	for _, t := range l.w.told {
		t.err = l.failureLocked("mlog sync", t.records)
	}
	l.idle.Broadcast()
	l.mu.Unlock()
	if l.c.OnFailure != nil {
		l.c.OnFailure(cause)
	}
	l.tell()
}
