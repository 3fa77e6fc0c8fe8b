package mpool

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/omf"
)

// scrubAll scrubs a pool from its beginning, by steps of so many bytes.
func (r *rig) scrubAll(p *Pool, bytes int64) (sum api.ScrubStep) {
	r.t.Helper()
	for steps := 0; ; steps++ {
		step, err := p.Scrub(bg, sum.Next, bytes)
		r.ok(err)
		if !step.Done && step.Next == sum.Next || steps > 10_000 {
			r.t.Fatalf("after %d steps the scrub stands at %+v", steps, step.Next)
		}
		sum.Next, sum.Total = step.Next, step.Total
		sum.Verified += step.Verified
		sum.Covered += step.Covered
		sum.Objects += step.Objects
		sum.Skipped += step.Skipped
		sum.Problems = append(sum.Problems, step.Problems...)
		if step.Done {
			return sum
		}
	}
}

// logOf makes a log with some records of 3000 bytes; it is left open if asked.
func (r *rig) logOf(p *Pool, open bool) layout.ObjectID {
	r.t.Helper()
	l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 60_000})
	r.ok(err)
	r.ok(l.Commit(bg))
	a, err := l.OpenAppend(bg)
	r.ok(err)
	for range 6 {
		_, err := a.Append(bg, make([]byte, 3000), true)
		r.ok(err)
	}
	if !open {
		r.ok(a.Close(bg))
	}
	r.ok(l.Put())
	return l.ID()
}

// Rot in every structure that counts is found, where it is, and told; whatever
// the size of the steps, everything is passed exactly once.
//
// proves S14 S45
func TestScrub(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.meta = 96 << 10
	told := 0
	r.run(func() {
		r.create(api.CreateOptions{})
		o := r.options()
		o.OnEvent = func(e Event) {
			if e.Type == EventCorruption {
				told++
			}
		}
		p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, o)
		r.ok(err)
		large := r.put(p, 2*mblock.VerifyPiece+5000)
		small := r.put(p, 5000)
		r.put(p, 0)
		closed, open := r.logOf(p, false), r.logOf(p, true)
		box, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 30_000})
		r.ok(err)
		for range 60 { // some pages of metadata
			r.put(p, 1)
		}
		info, err := p.Info(bg)
		r.ok(err)
		for _, bytes := range []int64{1, 100_000, api.MaxScrubStep} {
			s := r.scrubAll(p, bytes)
			if len(s.Problems) != 0 || s.Covered != info.Space.Live || s.Total != info.Space.Live ||
				s.Objects != info.Mblocks+info.Mlogs || s.Skipped != 0 || s.Verified < info.Stored+2*6*3000 {
				t.Errorf("steps of %d bytes: %+v of %+v", bytes, s, info)
			}
		}
		at := func(id layout.ObjectID, block int64) int64 {
			o, _ := p.table.Lookup(id)
			return o.Extent.Offset() + block*layout.BlockSize
		}
		size := r.disk.Size()
		meta := int64(p.sb.Load().Logs[0].Start)
		for _, x := range []struct {
			what   string
			object layout.ObjectID
			place  int64
		}{
			{"superblock 0", 0, 0},
			{"superblock 1", 0, omf.SecondCopyOffset},
			{"superblock 2", 0, size - omf.SuperblockSize},
			{"metadata", 0, (meta + 4) * layout.BlockSize},
			{"data", large, at(large, 3)},
			{"data in the last piece", large, at(large, 2*mblock.PageSums)},
			{"checksum page", large, at(large, 2*mblock.PageSums+2)},
			{"small data", small, at(small, 1)},
			{"closed log", closed, at(closed, 5)},
			{"open log", open, at(open, 5)},
		} {
			before := told
			r.disk.FlipBit(x.place+99, 2)
			s := r.scrubAll(p, 1<<20)
			r.disk.FlipBit(x.place+99, 2)
			if len(s.Problems) != 1 {
				t.Errorf("%s: found %+v", x.what, s.Problems)
				continue
			}
			got := s.Problems[0]
			if got.Object != x.object || got.Device != "sim" || got.Code != api.ECORRUPT || told != before+1 {
				t.Errorf("%s: found %+v, told %d times", x.what, got, told-before)
			}
			if x.what != "metadata" && x.what != "checksum page" && got.Offset&^(layout.BlockSize-1) != x.place {
				t.Errorf("%s at %d: found at %d", x.what, x.place, got.Offset)
			}
		}
		r.disk.SetUnreadable(at(small, 0), 1)
		s := r.scrubAll(p, 1<<20)
		if len(s.Problems) != 1 || s.Problems[0].Code != api.EIO || s.Problems[0].Object != small {
			t.Errorf("an unreadable block: %+v", s.Problems)
		}
		// The scrub has left no references: everything can be deleted.
		for _, id := range []layout.ObjectID{large, small} {
			r.ok(r.remove(p, id))
		}
		r.ok(p.DeleteMDC(bg, box))
		r.ok(p.Abandon(bg))
		if _, err := p.Scrub(bg, api.ScrubCursor{}, 1); !errors.Is(err, api.EBADF) {
			t.Errorf("of a closed pool: %v", err)
		}
	})
}

// The ids come in order and completely, whatever their number.
func TestScrubOrder(t *testing.T) {
	r := newRig(t, 2, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for n := range uint64(3*scrubMost + 7) {
			p.table.Insert(layout.Object{ID: layout.NewObjectID(layout.KindMblock, 1+n*7919%(1<<20)), Birth: layout.BirthStamp(n + 1)})
		}
		var from layout.ObjectID
		seen := 0
		for more := true; more; {
			var ids []layout.ObjectID
			ids, more = p.idsFrom(from + 1)
			for _, id := range ids {
				if id <= from {
					t.Fatalf("%v after %v", id, from)
				}
				from = id
				seen++
			}
		}
		if seen != 3*scrubMost+7 {
			t.Errorf("%d ids", seen)
		}
		r.ok(p.Abandon(bg))
	})
}
