package mblock

import (
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// readMode is how to read.
type readMode struct {
	bounce bool // never let the device into the caller's memory
	verify bool
	scrub  bool // read checksum pages anew, at low priority
}

func (m readMode) name() string {
	if m.scrub {
		return opVerify
	}
	return opRead
}

// ReadOp is one read under way. The zero value is ready; it may be used again,
// and then costs no allocation. Not safe for concurrent use.
//
//	err := reader.BeginRead(&op, p, off)
//	for _, o := range op.Ops() { queue.Put(o) }
//	// ... reap until all have ended
//	n, err := op.End()
type ReadOp struct {
	r    *Reader
	mode readMode

	p      []byte // where the caller wants the bytes; only n of them count
	skip   int    // bytes of the first block before those
	eof    bool   // p reaches past the written length
	first  uint32 // first block read
	data   []byte // what the device fills: p itself, or bounce
	pinned bool

	bounce  []byte     // from bdev.AllocBuffer, or nil
	pageBuf []byte     // checksum pages being read, from bdev.AllocBuffer, or nil
	pageAt  uint32     // number of the first page in pageBuf
	needed  uint32     // of those, the ones that this read needs
	sumsAt  uint32     // number of the first page in sums
	sums    [][]uint32 // the checksums by page; nil entries are in pageBuf
	few     [3][]uint32
	want    uint32 // the first block's checksum, if early
	early   bool   // it was known at the beginning

	ops  [3]bdev.Op
	list [3]*bdev.Op
	n    int // of ops
}

// BeginRead prepares a read of p at an offset: it checks, pins the object and
// fills op. It never blocks and starts no I/O. The caller starts all of op.Ops,
// waits until all have ended, and calls op.End; or op.Cancel, if none was
// started. Until End has returned, p is the device's. The whole of p is read at
// once: callers bound it. Offset and p aligned to 4096 bytes read straight into
// p, if p has room for whole blocks; p may then be filled with zeros past the
// written length. Errors: EINVAL, ECORRUPT (the record contradicts itself),
// ENOENT (the object is being deleted).
func (r *Reader) BeginRead(op *ReadOp, p []byte, off int64) error {
	return op.begin(r, p, off, readMode{verify: r.verify})
}

func (op *ReadOp) begin(r *Reader, p []byte, off int64, mode readMode) error {
	switch {
	case r.broken != nil:
		return r.broken
	case off < 0:
		return &api.Error{Code: api.EINVAL, Op: mode.name(), Object: r.cfg.ID, Detail: "the offset is negative"}
	}
	op.r, op.mode, op.n, op.early = r, mode, 0, false
	op.p, op.eof = p, false
	if left := max(r.written-off, 0); int64(len(p)) > left {
		op.p, op.eof = p[:left], true
	}
	if len(op.p) == 0 {
		return nil
	}
	if !r.cfg.pin() {
		return r.cfg.gone(mode.name())
	}
	op.pinned = true

	op.first = uint32(off / blockSize)
	op.skip = int(off % blockSize)
	size := (op.skip + len(op.p) + blockSize - 1) &^ (blockSize - 1)
	if !mode.bounce && op.skip == 0 && size <= len(p) && bdev.Aligned(p[:size]) {
		op.data = p[:size]
	} else {
		op.bounce = bdev.AllocBuffer(size)
		op.data = op.bounce
	}
	op.add(op.data, op.first)
	if mode.verify {
		op.findSums(op.first, uint32(size/blockSize))
	}
	return nil
}

// add adds a device operation that reads blocks of the extent.
func (op *ReadOp) add(buf []byte, block uint32) {
	o := &op.ops[op.n]
	o.Drive, o.Code, o.Buf = op.r.cfg.Drive, bdev.OpRead, buf
	o.Offset = op.r.cfg.Extent.Offset() + int64(block)*blockSize
	o.Bulk, o.Fixed, o.Err = op.mode.scrub, 0, nil
	op.list[op.n] = o
	op.n++
}

// findSums finds the checksums of data blocks, and sees to it that those that
// are not in memory are read.
func (op *ReadOp) findSums(first, count uint32) {
	r := op.r
	from, to := first/PageSums, (first+count-1)/PageSums+1
	op.sumsAt, op.sums = from, op.few[:0]
	missFrom, missTo := to, from
	for page := from; page < to; page++ {
		var sums []uint32
		switch {
		case r.own != nil:
			sums = r.own[page]
		case r.inline != nil:
			sums = r.inline
		case !op.mode.scrub:
			if p := r.cache.get(r.cfg.Birth, page); p != nil {
				sums = p.sums[:sumsIn(r.blocks, page)]
				if page == from {
					// It is in no cache of the processor, like the page's head
					// that get has looked at: one wait for both.
					op.want, op.early = sums[first%PageSums], true
				}
			}
		}
		if sums == nil {
			missFrom, missTo = min(missFrom, page), page+1
		}
		op.sums = append(op.sums, sums)
	}
	if missFrom < missTo {
		ahead := op.pagesAhead(count, missFrom, missTo)
		op.pageAt, op.needed = missFrom, missTo-missFrom
		op.pageBuf = bdev.AllocBuffer(int(op.needed+ahead) * blockSize)
		op.add(op.pageBuf[:op.needed*blockSize], r.blocks+missFrom)
		if ahead > 0 {
			op.add(op.pageBuf[op.needed*blockSize:], r.blocks+missTo)
		}
	}
}

// A read of so many blocks is probably followed by the next ones, whose checksum
// pages are read with its own, so many at most: else each of several reads under
// way, which share a page, would read it.
const (
	bulkBlocks = 64
	aheadPages = 15
)

// pagesAhead returns how many checksum pages from one on are read ahead by a read
// of count blocks that misses one. Who reads one block after another has the page
// before that.
func (op *ReadOp) pagesAhead(count, missing, from uint32) uint32 {
	r := op.r
	if count < bulkBlocks || op.mode.scrub || !r.cache.keeps() || missing > 0 && !r.cache.has(r.cfg.Birth, missing-1) {
		return 0
	}
	to := min(from+aheadPages, pagesFor(r.blocks))
	for n := from; n < to; n++ {
		if r.cache.has(r.cfg.Birth, n) {
			to = n
		}
	}
	return to - from
}

// Ops returns the device operations of the read, with Drive set: none, the
// data's, or the data's and those of checksums. The caller may set OnDone, User and,
// of the data's if it is [ReadOp.Direct], Fixed.
func (op *ReadOp) Ops() []*bdev.Op { return op.list[:op.n] }

// Direct says whether the data goes from the device straight into the caller's
// memory.
func (op *ReadOp) Direct() bool { return op.n > 0 && op.bounce == nil }

// End verifies what was read and gives the memory and the pin back. It returns
// how many bytes of p are good, and io.EOF when p reached past the written
// length. It never blocks. In simulation it must be called by a task. Errors:
// ECORRUPT, EIO.
func (op *ReadOp) End() (n int, err error) {
	n, err = op.check()
	if op.bounce != nil {
		copy(op.p[:n], op.data[op.skip:])
	} else if err != nil {
		clear(op.data[n:]) // never wrong bytes
	}
	if err == nil && op.eof {
		err = io.EOF
	}
	op.release()
	return n, err
}

// Cancel ends a read of which no operation was started.
func (op *ReadOp) Cancel() { op.release() }

// release gives memory and pin back. The device is through with them. It may
// run where nothing may block.
func (op *ReadOp) release() {
	bdev.FreeBuffer(op.bounce)
	bdev.FreeBuffer(op.pageBuf)
	op.bounce, op.pageBuf, op.data, op.p = nil, nil, nil, nil
	op.few = [3][]uint32{}
	op.sums = nil
	for i := range op.ops[:op.n] {
		op.ops[i].Buf = nil
	}
	op.n = 0
	if op.pinned {
		op.pinned = false
		op.r.cfg.unpin()
	}
}

// unwound frees the memory of a task that a simulated power cut unwinds: its
// process is dead, nobody else will.
func (op *ReadOp) unwound(s *sched.Sched) {
	if s.Cutting() {
		bdev.FreeBuffer(op.bounce)
		bdev.FreeBuffer(op.pageBuf)
		op.bounce, op.pageBuf = nil, nil
	}
}

// check returns how many bytes from p's beginning are good.
func (op *ReadOp) check() (int, error) {
	for i := range min(op.n, 2) { // the third reads ahead
		if err := op.ops[i].Err; err != nil {
			e := op.r.cfg.ioError(op.mode.name(), err)
			if i > 0 {
				e.Detail = "the drive failed to read the checksums"
			}
			return 0, e
		}
	}
	if !op.mode.verify || op.n == 0 {
		return len(op.p), nil
	}
	if op.pageBuf != nil {
		if err := op.takePages(); err != nil {
			return 0, err
		}
	}
	block := op.first
	for at := 0; at < len(op.data); at += blockSize {
		want := op.want
		if at > 0 || !op.early {
			want = op.sums[block/PageSums-op.sumsAt][block%PageSums]
		}
		ahead := uintptr(sumAhead)
		if at+blockSize == len(op.data) {
			ahead = 0
		}
		if got := op.r.seed.sum(block, op.data[at:at+blockSize], ahead); got != want {
			return max(at-op.skip, 0), op.r.cfg.corrupt(op.mode.name(), block, nil,
				"block %d of the data is not what was written: its checksum is %#08x, want %#08x; other blocks can still be read",
				block, got, want)
		}
		block++
	}
	return len(op.p), nil
}

// takePages verifies the checksum pages that were read and keeps them. Those that
// were read ahead matter only if they are good.
func (op *ReadOp) takePages() error {
	r := op.r
	for i := range uint32(len(op.pageBuf) / blockSize) {
		ahead := i >= op.needed
		index, at := op.pageAt+i, i*blockSize
		if ahead && (op.ops[2].Err != nil || r.cache.has(r.cfg.Birth, index)) {
			continue
		}
		page := &sumPage{birth: r.cfg.Birth, index: index}
		sums := page.sums[:sumsIn(r.blocks, index)]
		if err := DecodePage(op.pageBuf[at:at+blockSize], r.cfg.Birth, index, sums); err != nil {
			if ahead {
				continue
			}
			e := r.cfg.corrupt(op.mode.name(), r.blocks+index, err,
				"the checksums of blocks %d to %d cannot be read", index*PageSums, index*PageSums+uint32(len(sums))-1)
			if p, ok := errors.AsType[*PageError](err); ok {
				e.Err, e.Detail = nil, e.Detail+": "+p.Error()
			}
			return e
		}
		if !ahead {
			op.sums[index-op.sumsAt] = sums
		}
		if !op.mode.scrub {
			r.cache.put(page)
		}
	}
	return nil
}
