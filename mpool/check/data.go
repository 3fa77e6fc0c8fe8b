package check

import (
	"context"
	"fmt"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/sched"
)

// part is what one task verifies at once: as much of an mblock as one checksum
// page is of, or a small one whole.
type part struct {
	dev    *device
	object layout.Object
	first  uint32 // data block
	blocks uint32
	page   uint32 // checksum page; of a small mblock there is none
}

// maxReads bounds the reads of data that are under way on all drives together;
// each has a MiB of memory.
const maxReads = 128

// verifier hands out parts to tasks and takes their results. Any task reads from
// any drive, but each drive has no more reads than it is to have: one that hangs
// holds up its own tasks only.
type verifier struct {
	c     *checker
	st    *state
	total int64
	most  int // reads under way on one drive

	mu sched.Mutex
	// +checklocks:mu
	queues []*queue // one of each drive that holds data
	// +checklocks:mu
	done int64
	// +checklocks:mu
	failed error
	// +checklocks:mu
	running int // tasks
	// +checklocks:mu
	changed sched.Cond // done or running
}

// queue is what is left to verify on one drive, in the order in which it lies
// there. Fields are guarded by the verifier's lock.
type queue struct {
	list  []extent // objects that were not begun
	cur   part     // its next part begins at cur.first
	left  uint32   // blocks of it
	reads int      // under way
}

// data reads all mblocks, of each drive in the order in which they lie there, by
// several tasks. It is done when all of them have ended.
func (c *checker) data(ctx context.Context, st *state, list []extent) error {
	v := &verifier{c: c, st: st, most: c.o.Reads}
	queues := split(list)
	v.most = max(1, min(v.most, maxReads/max(1, len(queues))))
	tasks := max(1, v.most*len(queues))
	v.mu.Lock()
	v.changed.Init(nil, &v.mu)
	v.queues, v.running = queues, tasks
	v.mu.Unlock()
	everyObject(st.table, func(o *layout.Object) { v.total += int64(o.Written) })
	found := len(c.report.Problems)
	if tasks == 1 {
		v.work(ctx, v.progress)
	} else {
		// The caller only tells how far it is: a drive that hangs must not keep it
		// from that.
		for range tasks {
			(*sched.Sched)(nil).Go("check data", func() { v.work(ctx, func() {}) })
		}
	}
	v.mu.Lock()
	for v.running > 0 {
		if err := v.changed.Wait(context.WithoutCancel(ctx)); err != nil {
			break // never: the context does not end
		}
		v.mu.Unlock()
		v.progress()
		v.mu.Lock()
	}
	done, err := v.done, v.failed
	v.mu.Unlock()
	c.sortFrom(found)
	c.report.VerifiedBytes = done
	if err != nil {
		return err
	}
	c.o.Progress(v.total, v.total)
	return nil
}

// split makes a queue of each drive. list is in the order of drives.
func split(list []extent) []*queue {
	var queues []*queue
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].slot == list[0].slot {
			n++
		}
		queues = append(queues, &queue{list: list[:n]})
		list = list[n:]
	}
	return queues
}

// progress tells how far it is.
func (v *verifier) progress() {
	v.mu.Lock()
	done := v.done
	v.mu.Unlock()
	v.c.o.Progress(done, v.total)
}

// work verifies parts until none is left for this task or the context ends.
func (v *verifier) work(ctx context.Context, progress func()) {
	buf := bdev.AllocBuffer(windowMost * blockSize)
	defer bdev.FreeBuffer(buf)
	var sums [mblock.PageSums]uint32
	for {
		err := ended(ctx)
		q, p, ok := v.next(err)
		if !ok {
			return
		}
		good := v.c.verify(&p, buf, &sums)
		v.mu.Lock()
		v.done += good
		q.reads--
		v.changed.Broadcast()
		v.mu.Unlock()
		progress()
	}
}

// next returns the next part, of the drive with the fewest reads under way. When
// there is none, or an error, the caller's work is over: what is left are drives
// that have their reads.
func (v *verifier) next(err error) (*queue, part, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var best *queue
	for _, q := range v.queues {
		for q.left == 0 && len(q.list) > 0 {
			v.openLocked(q)
		}
		if q.left > 0 && q.reads < v.most && (best == nil || q.reads < best.reads) {
			best = q
		}
	}
	if err != nil || best == nil {
		if v.failed == nil {
			v.failed = err
		}
		v.running--
		v.changed.Broadcast()
		return nil, part{}, false
	}
	p := best.cur
	p.blocks = min(best.left, mblock.PageSums)
	best.left -= p.blocks
	best.cur.first += p.blocks
	best.cur.page++
	best.reads++
	return best, p, true
}

// openLocked makes a queue's next object the one whose parts are handed out, if
// it is an mblock with data on a drive that is there.
//
// +checklocks:v.mu
func (v *verifier) openLocked(q *queue) {
	id := q.list[0].id
	q.list = q.list[1:]
	o, ok := v.st.table.Lookup(id)
	if !ok || id.Kind() != layout.KindMblock {
		return
	}
	if _, bad := v.c.misplaced(&o); bad || v.c.bySlot[o.Extent.Drive].dev == nil {
		return
	}
	q.cur = part{dev: v.c.bySlot[o.Extent.Drive].dev, object: o}
	q.left = dataBlocks(&o)
}

func dataBlocks(o *layout.Object) uint32 { return uint32((o.Written + blockSize - 1) / blockSize) }

// verify reads a part and compares it with its checksums. It returns how many
// bytes of data are right. buf has room for a window.
func (c *checker) verify(p *part, buf []byte, sums *[mblock.PageSums]uint32) int64 {
	o := &p.object
	want := o.Sums
	if dataBlocks(o) > layout.MaxInlineSums {
		want = sums[:p.blocks]
		if !c.sums(p, buf[:blockSize], want) {
			return 0
		}
	}
	var good int64
	for at := uint32(0); at < p.blocks; {
		n := min(p.blocks-at, windowMost)
		first := p.first + at
		off := o.Extent.Offset() + int64(first)*blockSize
		err := p.dev.read(buf[:n*blockSize], off)
		if err != nil && n > 1 {
			// One block at a time: the others may be whole.
			n = 1
			err = p.dev.read(buf[:blockSize], off)
		}
		for i := range n {
			good += c.block(o, first+i, buf[i*blockSize:(i+1)*blockSize], want[at+i], err)
		}
		at += n
	}
	return good
}

// sums reads a part's checksum page.
func (c *checker) sums(p *part, b []byte, want []uint32) bool {
	o := &p.object
	off := o.Extent.Offset() + int64(dataBlocks(o)+p.page)*blockSize
	err := p.dev.read(b, off)
	if err == nil {
		err = mblock.DecodePage(b, o.Birth, p.page, want)
	}
	if err == nil {
		return true
	}
	c.problem(Problem{
		Code: DataSums, Object: o.ID, Device: p.dev.path, Offset: off,
		Text: fmt.Sprintf("checksum page %d, of blocks %d to %d: %v", p.page, p.first, p.first+p.blocks-1, err),
	})
	return false
}

// block compares one block with its checksum and returns how many bytes of data
// it holds, or 0.
func (c *checker) block(o *layout.Object, index uint32, b []byte, want uint32, err error) int64 {
	p := Problem{
		Code: DataChecksum, Object: o.ID, Device: c.bySlot[o.Extent.Drive].path(),
		Offset: o.Extent.Offset() + int64(index)*blockSize,
	}
	length := min(int64(o.Written)-int64(index)*blockSize, blockSize)
	got := mblock.BlockSum(o.Birth, index, b)
	switch {
	case err != nil:
		p.Code = DataUnreadable
		p.Text = fmt.Sprintf("block %d: %v", index, err)
	case got != want:
		p.Text = fmt.Sprintf("block %d has checksum %08x, recorded is %08x", index, got, want)
	case !zero(b[length:]):
		p.Code = DataPadding
		p.Text = fmt.Sprintf("block %d has bytes behind the last one, %d, that are not zero", index, o.Written)
	default:
		return length
	}
	c.problem(p)
	return 0
}

func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
