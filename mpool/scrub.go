package mpool

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

const (
	opScrub = "pool scrub"

	scrubLeast = 4 << 10 // what an object counts for at least, in bytes of a step
	scrubMost  = 4096    // objects of a step
)

// Scrub does one step of a scrub: it reads from the drives, at low priority and
// past all caches, what comes next after the cursor, about as many bytes as are
// given (1 to [api.MaxScrubStep]), and verifies it. All steps together, from the
// zero cursor until one says Done, read every superblock copy, the metadata, every
// record of every log and all data and checksums of every mblock that was there
// throughout. It takes no references: whoever deletes, opens or erases meanwhile
// is not refused because of it. What is wrong is in the step's problems, and told
// as events; it is mended by nobody.
//
// The error is the context's, or EBADF; what was not done then is to be done
// again.
func (p *Pool) Scrub(ctx context.Context, from api.ScrubCursor, bytes int64) (api.ScrubStep, error) {
	if err := p.alive(opScrub); err != nil {
		return api.ScrubStep{}, err
	}
	done, err := p.opt.admitted(ctx, PriorityLow)
	if err != nil {
		return api.ScrubStep{}, api.ContextError(opScrub, err)
	}
	defer done()
	s := &scrub{p: p, ctx: ctx, left: min(max(bytes, 1), api.MaxScrubStep)}
	s.step.Next = from
	s.step.Total = p.liveBytes()
	if from.Object == 0 {
		err = s.metadata()
	}
	if err == nil && s.step.Next.Object != 0 {
		err = s.objects()
	}
	if err == nil {
		err = p.alive(opScrub)
	}
	return s.step, err
}

// liveBytes returns what all committed objects occupy.
func (p *Pool) liveBytes() (n int64) {
	for _, d := range p.drives {
		n += d.space().Live
	}
	return n
}

// scrub is one step.
type scrub struct {
	p    *Pool
	ctx  context.Context
	left int64 // bytes
	step api.ScrubStep
}

// enough says whether the step is to end.
func (s *scrub) enough() bool { return s.left <= 0 || len(s.step.Problems) >= api.MaxScrubProblems }

// verified counts bytes.
func (s *scrub) verified(n int64) {
	s.step.Verified += n
	s.left -= n
}

// found notes a problem. An error that is the context's or the pool's end is
// returned.
func (s *scrub) found(o layout.ObjectID, d *drive, offset int64, err error) error {
	if s.ctx.Err() != nil {
		return api.ContextError(opScrub, context.Cause(s.ctx))
	}
	pr := api.ScrubProblem{Object: o, Device: d.path(), Offset: offset, Code: api.CodeOf(err), Text: err.Error()}
	if e, ok := errors.AsType[*api.Error](err); ok && e.Device != "" {
		pr.Device, pr.Offset = e.Device, e.Offset
	}
	if pr.Code == api.ENOENT || pr.Code == api.EBADF { // the object goes, or the pool
		return nil
	}
	if pr.Code != api.ECORRUPT {
		pr.Code = api.EIO
	}
	s.step.Problems = append(s.step.Problems, pr)
	return nil
}

// metadata verifies the superblocks and the metadata's records.
func (s *scrub) metadata() error {
	if s.step.Next.Place == 0 {
		for _, d := range s.p.drives {
			if err := s.superblocks(d); err != nil {
				return err
			}
		}
		s.step.Next.Place = 1
	}
	own := s.p.metaDrive()
	r := s.p.meta.mdc.NewReader(mlog.ReaderOptions{})
	defer r.Close()
	err := r.Seek(s.ctx, s.step.Next.Place-1)
	for err == nil {
		if s.enough() {
			s.step.Next.Place = r.Record() + 1
			return nil
		}
		var rec []byte
		if rec, err = r.View(s.ctx); err == nil {
			s.verified(int64(len(rec)))
		}
	}
	s.step.Next = api.ScrubCursor{Object: 1}
	// Of a log that was replaced meanwhile nothing is asked any more.
	if errors.Is(err, io.EOF) || errors.Is(err, api.ESTALE) || errors.Is(err, api.ENOENT) {
		return nil
	}
	return s.found(0, own, 0, s.p.corrupted(ioError(opScrub, own.dev, err)))
}

// superblockTries is how often a copy is read that is not right: it may be being
// written.
const superblockTries = 4

// superblocks verifies the copies of one drive.
func (s *scrub) superblocks(d *drive) error {
	if d.dev == nil {
		return nil // that it is missing is known
	}
	b := make([]byte, omf.SuperblockSize)
	for _, off := range [omf.Copies]int64{0, omf.SecondCopyOffset, d.entry.EndCopy} {
		var err error
		for range superblockTries {
			if err = readAt(s.ctx, d.dev, b, off); err == nil {
				_, err = omf.Decode(b)
			}
			if err == nil || s.ctx.Err() != nil {
				break
			}
		}
		if err == nil {
			s.verified(omf.SuperblockSize)
			continue
		}
		if !isIO(err) {
			err = s.p.corrupted(&api.Error{
				Code: api.ECORRUPT, Op: opScrub, Device: d.path(), Offset: off, Err: err,
				Detail: "a copy of the superblock is damaged; the next activation writes it anew",
			})
		}
		if err := s.found(0, d, off, err); err != nil {
			return err
		}
	}
	return nil
}

// isIO says whether an error is a device's.
func isIO(err error) bool {
	_, ok := errors.AsType[*bdev.IOError](err)
	return ok
}

// objects verifies objects in the order of their ids.
func (s *scrub) objects() error {
	ids, more := s.p.idsFrom(s.step.Next.Object)
	for _, id := range ids {
		if id != s.step.Next.Object {
			s.step.Next = api.ScrubCursor{Object: id}
		}
		if s.enough() {
			return nil
		}
		left := s.left
		done, err := s.object(id)
		if err != nil || !done {
			return err
		}
		s.left = min(s.left, left-scrubLeast)
		s.step.Next = api.ScrubCursor{Object: id + 1}
	}
	s.step.Done = !more
	return nil
}

// idsFrom returns the lowest ids of committed objects from one on, in order, and
// whether there are more.
func (p *Pool) idsFrom(from layout.ObjectID) (ids []layout.ObjectID, more bool) {
	const chunk = 1024
	last := ^layout.ObjectID(0)
	trim := func() {
		slices.Sort(ids)
		if len(ids) > scrubMost {
			ids, more = ids[:scrubMost], true
			last = ids[scrubMost-1]
		}
	}
	for cursor := uint64(0); ; {
		cursor = p.table.Scan(cursor, chunk, func(o layout.Object) {
			switch {
			case o.ID < from:
			case o.ID > last:
				more = true
			default:
				ids = append(ids, o.ID)
			}
		})
		if len(ids) > 2*scrubMost {
			trim()
		}
		if cursor == 0 {
			trim()
			return ids, more
		}
	}
}

// hold returns a committed object whose space is kept until unpin, without a
// reference, or nil if it goes.
func (p *Pool) hold(id layout.ObjectID) *object {
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	o := p.uses[id]
	if o == nil {
		desc, ok := p.table.Lookup(id)
		if !ok || p.alive(opScrub) != nil {
			return nil
		}
		if o = p.newObject(p.byslot[desc.Extent.Drive], desc, committed); o.drive.dev == nil {
			return nil
		}
		p.uses[id] = o
	}
	if o.drive.dev == nil || !o.pin() {
		return nil
	}
	if o.use.Refs() == 0 {
		o.lingers.Store(true) // the last unpin leaves it to the table
	}
	return o
}

// object verifies an object from the cursor on. It returns false when there is
// more of it than the step has left.
func (s *scrub) object(id layout.ObjectID) (done bool, err error) {
	o := s.p.hold(id)
	if o == nil {
		return true, nil
	}
	defer o.unpin()
	st, desc := o.snapshot()
	if st != committed {
		return true, nil
	}
	if id.Kind() == layout.KindMblock {
		done, err = s.mblock(o, int64(desc.Written))
	} else {
		done, err = s.log(o)
	}
	if done && err == nil {
		s.step.Objects++
		s.step.Covered += desc.Extent.Size()
	}
	return done, err
}

// mblock verifies pieces of an mblock.
func (s *scrub) mblock(o *object, written int64) (done bool, err error) {
	at := int64(s.step.Next.Place) / mblock.VerifyPiece * mblock.VerifyPiece
	for ; at < written && at >= 0; at += mblock.VerifyPiece {
		if s.enough() {
			s.step.Next.Place = uint64(at)
			return false, nil
		}
		err := o.reader.VerifyPiece(s.ctx, at)
		if err != nil {
			err = s.p.corrupted(o.dataError(opScrub, err))
			if err := s.found(o.id, o.drive, 0, err); err != nil {
				return false, err
			}
			continue
		}
		s.verified(min(written-at, mblock.VerifyPiece))
	}
	return true, nil
}
