package mpool

import (
	"errors"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
)

// scrubTries is how often a log is tried that others open, write or erase at the
// same time.
const scrubTries = 3

// log verifies a log. One that is open is read by its own readers' means, which
// know what its writer does. One that is not is recovered as an open would, which
// reads all of it: nothing is written, and nobody who opens it meanwhile has to
// wait; so what is found counts only if nobody was there.
func (s *scrub) log(o *object) (done bool, err error) {
	for range scrubTries {
		o.mu.Lock()
		open, desc, was := o.log, o.desc, o.log
		o.mu.Unlock()
		switch {
		case open.log != nil:
			return s.openLog(o, open.log)
		case open.opens > 0 || open.busy:
			// A container, or somebody is just opening it, who finds out himself.
		default:
			c := o.logConfig(&desc)
			c.Writers, c.OnFailure = nil, nil
			c.Replay = func(uint64, []byte) error { return s.p.alive(opScrub) } // who deactivates waits for this
			l, err := mlog.Open(s.ctx, c)
			if err == nil {
				_, bytes := l.Len()
				s.verified(bytes)
				if err := l.Abandon(s.ctx); err != nil {
					return true, api.ContextError(opScrub, err)
				}
				return true, nil
			}
			o.mu.Lock()
			alone := o.log.seized == was.seized && !o.log.busy
			o.mu.Unlock()
			if alone && s.replaced(&desc) {
				return true, nil
			}
			if alone {
				err = s.p.corrupted(ioError(opScrub, o.drive.dev, err))
				return true, s.found(o.id, o.drive, desc.Extent.Offset(), err)
			}
		}
	}
	s.step.Skipped++
	return true, nil
}

// replaced says whether a log that cannot be opened is that of a container which
// a compaction has replaced: what it says counts no more, and the next compaction
// writes it anew.
func (s *scrub) replaced(desc *layout.Object) bool {
	if desc.Partner == 0 {
		return false
	}
	o := s.p.hold(desc.Partner)
	if o == nil {
		return false
	}
	defer o.unpin()
	st, other := o.snapshot()
	if st != committed || other.Generation <= desc.Generation {
		return false
	}
	ended := false
	c := o.logConfig(&other)
	c.Writers, c.OnFailure = nil, nil
	c.Replay = func(_ uint64, record []byte) error {
		ended = ended || len(record) > 0 && record[0] == mlog.KindEnd
		return s.p.alive(opScrub)
	}
	l, err := mlog.Open(s.ctx, c)
	if err != nil {
		return false
	}
	return l.Abandon(s.ctx) == nil && ended
}

// openLog verifies the records of an open log that are durable, from the cursor
// on.
func (s *scrub) openLog(o *object, l *mlog.Log) (done bool, err error) {
	r := l.NewReader(mlog.ReaderOptions{})
	defer r.Close()
	err = r.Seek(s.ctx, s.step.Next.Place)
	for err == nil {
		if s.enough() {
			s.step.Next.Place = r.Record()
			return false, nil
		}
		var rec []byte
		if rec, err = r.View(s.ctx); err == nil {
			s.verified(int64(len(rec)))
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, api.ENOENT):
		return true, nil
	case errors.Is(err, api.EBADF): // it was closed: the next step looks at it anew
		s.step.Next.Place = 0
		return false, nil
	}
	return true, s.found(o.id, o.drive, 0, s.p.corrupted(ioError(opScrub, o.drive.dev, err)))
}
