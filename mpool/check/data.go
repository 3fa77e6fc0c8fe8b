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

// verifier hands out parts to tasks and takes their results.
type verifier struct {
	c     *checker
	st    *state
	list  []extent
	total int64

	mu sched.Mutex
	// +checklocks:mu
	at int // in list
	// +checklocks:mu
	cur part // of list[at-1]; its next part begins at cur.first
	// +checklocks:mu
	left uint32 // blocks of it
	// +checklocks:mu
	done int64
	// +checklocks:mu
	failed error
	// +checklocks:mu
	running int
	// +checklocks:mu
	idle sched.Cond
}

// data reads all mblocks, in the order in which they lie on the drives, by
// several tasks. It is done when all of them have ended.
func (c *checker) data(ctx context.Context, st *state, list []extent) error {
	v := &verifier{c: c, st: st, list: list, running: c.o.Reads}
	v.mu.Lock()
	v.idle.Init(nil, &v.mu)
	v.mu.Unlock()
	everyObject(st.table, func(o *layout.Object) { v.total += int64(o.Written) })
	found := len(c.report.Problems)
	for range c.o.Reads - 1 {
		(*sched.Sched)(nil).Go("check data", func() { v.work(ctx, func() {}) })
	}
	v.work(ctx, func() {
		v.mu.Lock()
		done := v.done
		v.mu.Unlock()
		c.o.Progress(done, v.total)
	})
	v.mu.Lock()
	for v.running > 0 {
		if err := v.idle.Wait(context.WithoutCancel(ctx)); err != nil {
			break // never: the context does not end
		}
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

// work verifies parts until none is left or the context ends.
func (v *verifier) work(ctx context.Context, progress func()) {
	buf := bdev.AllocBuffer(windowMost * blockSize)
	defer bdev.FreeBuffer(buf)
	var sums [mblock.PageSums]uint32
	for {
		err := ended(ctx)
		p, ok := v.next(err)
		if !ok {
			return
		}
		good := v.c.verify(&p, buf, &sums)
		v.mu.Lock()
		v.done += good
		v.mu.Unlock()
		progress()
	}
}

// next returns the next part. When there is none, or an error, the caller's work
// is over.
func (v *verifier) next(err error) (part, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for err == nil && v.left == 0 && v.at < len(v.list) {
		v.openLocked(v.list[v.at].id)
		v.at++
	}
	if err != nil || v.left == 0 {
		if v.failed == nil {
			v.failed = err
		}
		v.running--
		v.idle.Broadcast()
		return part{}, false
	}
	p := v.cur
	p.blocks = min(v.left, mblock.PageSums)
	v.left -= p.blocks
	v.cur.first += p.blocks
	v.cur.page++
	return p, true
}

// openLocked makes an object the one whose parts are handed out, if it is an
// mblock with data on a drive that is there.
//
// +checklocks:v.mu
func (v *verifier) openLocked(id layout.ObjectID) {
	o, ok := v.st.table.Lookup(id)
	if !ok || id.Kind() != layout.KindMblock {
		return
	}
	if _, bad := v.c.misplaced(&o); bad || v.c.bySlot[o.Extent.Drive].dev == nil {
		return
	}
	v.cur = part{dev: v.c.bySlot[o.Extent.Drive].dev, object: o}
	v.left = dataBlocks(&o)
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
