package mpool

import (
	"context"
	"errors"
	"syscall"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Commits with one flush.
//
// A small mblock on the metadata drive is committed without a flush of its own:
// its data is written, then its record is appended, and the flush that makes the
// record durable makes the data so, too. A crash before that flush has ended may
// leave the record without the data. Such a record says of itself that its data
// was not flushed, and has all checksums; and only the last group of the log can
// be in doubt, as each group says that the one before it was durable. So
// activation reads what the unflushed creates of that group speak of. Where it
// is not there, the commit was cut off, and was never acknowledged: the object
// never was, and a record is written that deletes it.

// maxUnflushed bounds the unflushed creates that are under way, and so those
// that are found in a log's last group: the record that deletes them is one, as
// a part of it would make the rest pass for durable.
const maxUnflushed = 2048

// errNotCovered refuses a record of unflushed data that a flush has failed to
// make durable since.
var errNotCovered = errors.New("a flush has failed since the data was written")

// unflushedCommit is all that the transaction of one commit needs.
type unflushedCommit struct {
	txn
	desc layout.Object
	one  [1]layout.ObjectID
}

// sharesFlush says whether an object may be committed with one flush.
func (m *meta) sharesFlush(o *object) bool {
	return o.id.Kind() == layout.KindMblock && o.drive == m.pool.metaDrive()
}

// commitUnflushed commits an mblock of the metadata drive. Its data is flushed
// by the record's flush unless it is large. errNotCovered: nothing was done, and
// a flush of its own will say why.
func (p *Pool) commitUnflushed(ctx context.Context, op string, o *object) error {
	m := p.meta
	sent := false
	defer func() {
		if !sent {
			m.unflushed.Add(-1)
		}
	}()
	if m.unflushed.Add(1) > maxUnflushed {
		return errNotCovered
	}
	s, err := o.writer.SealWritten(ctx)
	desc, err := o.sealed(op, &s, err)
	switch {
	case err != nil:
		return err
	case !s.Unflushed:
		return p.commitPrepared(ctx, op, []*object{o}, []layout.Object{desc}, nil)
	case s.Ticket != o.drive.dev.Ticket():
		return errNotCovered // also where the pool takes no transactions any more
	}
	c := &unflushedCommit{desc: desc, one: [1]layout.ObjectID{o.id}}
	c.txn = txn{op: op, ends: deleteCost(), ids: c.one[:], live: createBytes(&desc), unflushed: true, ticket: s.Ticket}
	c.rec.CreateUnflushed(&c.desc)
	c.apply = func() { o.publish(c.desc) }
	err = m.commit(ctx, &c.txn)
	sent = err == nil || api.CodeOf(err) == api.EUNKNOWN
	return err
}

// dropUnflushed takes out of the table what commits made that were cut off
// before their data was durable, and returns the record that deletes it.
func (p *Pool) dropUnflushed(ctx context.Context) (*omf.Record, error) {
	var doubtful []layout.Object
	err := p.meta.mdc.Unsure(ctx, func(record []byte) error {
		return omf.DecodeRecord(record, func(op *omf.Op) error {
			if op.Unflushed {
				o := op.Object
				o.Sums = append([]uint32(nil), o.Sums...)
				doubtful = append(doubtful, o)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	there := make([]bool, len(doubtful))
	var j joiner
	j.init(p.sched)
	tasks := min(len(doubtful), maxPrepare)
	for first := range tasks {
		j.start(p.sched, "verify commit", func() error {
			for i := first; i < len(doubtful); i += tasks {
				var err error
				if there[i], err = p.arrived(ctx, &doubtful[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := j.wait(); err != nil {
		return nil, err
	}
	r := new(omf.Record)
	for i := range doubtful {
		o := &doubtful[i]
		if now, lives := p.table.Lookup(o.ID); lives && now.Birth == o.Birth && !there[i] {
			p.table.Delete(o.ID)
			r.Delete(o.ID, o.Birth)
			d := p.byslot[o.Extent.Drive]
			p.opt.OnEvent(Event{Type: EventCommitCut, Object: o.ID, Device: d.path(), Offset: o.Extent.Offset()})
		}
	}
	return r, nil
}

// arrived says whether the data of a small mblock is what its checksums say. A
// place that cannot be read is none: a torn write may leave it so.
func (p *Pool) arrived(ctx context.Context, o *layout.Object) (bool, error) {
	d := p.byslot[o.Extent.Drive]
	if d == nil || d.dev == nil {
		return true, nil // whatever reads it finds out
	}
	r := mblock.NewReader(mblock.Config{
		Sched: p.sched, Drive: d.dev, Extent: o.Extent, ID: o.ID, Birth: o.Birth,
	}, *o, nil, true)
	buf := make([]byte, o.Written)
	var err error
	for range 2 { // a commit is not given up for one bad read
		if _, err = r.ReadAt(ctx, buf, 0); err == nil {
			return true, nil
		}
		if !errors.Is(err, api.ECORRUPT) && !unreadable(err) {
			return false, err
		}
	}
	if unreadable(err) {
		// Nor because the drive reads nothing just now.
		return false, probe(ctx, d.dev)
	}
	return false, nil
}

// probe says whether a drive reads what it certainly has: a superblock.
func probe(ctx context.Context, d *bdev.Drive) error {
	b := make([]byte, omf.SuperblockSize)
	err := readAt(ctx, d, b, 0)
	if err != nil && unreadable(err) {
		err = readAt(ctx, d, b, omf.SecondCopyOffset)
	}
	return err
}

// unreadable says whether an error of a read is the medium's at that place.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EILSEQ)
}

// deleteDropped makes it durable, in one transaction, that what dropUnflushed
// took out never was. Until then the next activation would find out anew.
func (p *Pool) deleteDropped(ctx context.Context, r *omf.Record) error {
	if r.Count() == 0 || p.meta.failed.Load() != nil {
		return nil
	}
	return p.meta.commit(ctx, &txn{op: opActivate, rec: *r, frees: true, apply: func() {}})
}
