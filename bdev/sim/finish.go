package sim

import (
	"math/rand/v2"
	"syscall"

	"github.com/mpool-go/mpool/bdev"
)

// finishLocked does what an operation does at its end and returns its error.
//
// +checklocks:e.disk.mu
func (e *engine) finishLocked(t *transfer) error {
	d := e.disk
	switch t.op.Code {
	case bdev.OpWrite, bdev.OpDiscard:
		return e.finishWriteLocked(t)
	case bdev.OpFlush:
		if t.verdict.err != nil {
			d.failFlushLocked(t.ends, e.rng)
			return t.verdict.err
		}
		if t.verdict.effect == EffectLost {
			return nil
		}
		d.flushLocked(t.ends)
		return nil
	case bdev.OpRead:
		return e.finishReadLocked(t)
	default:
		return syscall.EINVAL
	}
}

// +checklocks:e.disk.mu
func (e *engine) finishWriteLocked(t *transfer) error {
	d := e.disk
	w := d.leaveLocked(t.write)
	if w == nil {
		return syscall.ENODEV
	}
	if !w.discard {
		w.fetch(t.op, w.size)
	}
	if t.verdict.err != nil {
		d.arrivePartlyLocked(w, e.rng)
		return t.verdict.err
	}
	switch t.verdict.effect {
	case EffectLost:
		return nil
	case EffectMisdirect:
		w.shift(t.verdict.shift, d.size)
	case EffectFlip:
		if len(w.pieces) > 0 && !w.discard {
			p := w.pieces[e.rng.IntN(len(w.pieces))]
			at := pickByte(e.rng, p.mask)
			w = w.flipped(p.index, at, 1<<e.rng.IntN(8))
		}
	case EffectNone:
	}
	if d.refuseUnreadableLocked(w) {
		d.arrivePartlyLocked(w, e.rng)
		return syscall.EIO
	}
	d.arriveLocked(w)
	return nil
}

// pickByte returns a random byte of the chosen sectors of a page.
func pickByte(rng *rand.Rand, mask sectorMask) int64 {
	k := rng.IntN(mask.count())
	for s := range pageSectors {
		if mask>>s&1 == 0 {
			continue
		}
		if k == 0 {
			return int64(s*sectorSize + rng.IntN(sectorSize))
		}
		k--
	}
	return 0
}

// finishReadLocked fills a read's buffer. Of a read that fails the buffer holds
// anything.
//
// +checklocks:e.disk.mu
func (e *engine) finishReadLocked(t *transfer) error {
	d, o := e.disk, t.op
	err := t.verdict.err
	size := o.Size()
	for pos := int64(0); pos < size; {
		at := o.Offset + pos
		from := at % pageSize
		dst := bytesAt(o, pos)
		n := min(pageSize-from, int64(len(dst)))
		content, bad := d.current.page(at / pageSize)
		switch {
		case bad && err == nil:
			err = syscall.EIO
			fallthrough
		case err != nil:
			scribble(e.rng, dst[:n])
		case content == nil:
			clear(dst[:n])
		default:
			copy(dst[:n], content[from:])
		}
		pos += n
	}
	if err != nil {
		return err
	}
	for _, w := range d.underway {
		if w.offset < o.Offset+size && o.Offset < w.offset+w.size {
			e.mix(o, w)
		}
	}
	if t.verdict.effect == EffectFlip {
		bytesAt(o, e.rng.Int64N(size))[0] ^= 1 << e.rng.IntN(8)
	}
	return nil
}

// mix shows a read some sectors of a write that is under way.
func (e *engine) mix(o *bdev.Op, w *write) {
	for _, p := range w.pieces {
		for s := range pageSectors {
			pos := p.index*pageSize + int64(s*sectorSize) - o.Offset
			if p.mask>>s&1 == 0 || pos < 0 || pos >= o.Size() || e.rng.Uint32()&1 == 0 {
				continue
			}
			for done := 0; done < sectorSize; {
				dst := bytesAt(o, pos+int64(done))
				dst = dst[:min(len(dst), sectorSize-done)]
				if p.data == nil {
					clear(dst)
				} else {
					copy(dst, p.data.sector(s)[done:])
				}
				done += len(dst)
			}
		}
	}
}

// scribble fills memory with what a failed read may leave there.
func scribble(rng *rand.Rand, p []byte) {
	v := byte(rng.Uint32())
	for i := range p {
		p[i] = v
	}
}
