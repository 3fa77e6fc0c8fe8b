package mpool

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// kill leaves the disk as a process does that dies now.
func (r *rig) kill(p *Pool) {
	r.t.Helper()
	left := r.disk.Clone()
	r.ok(p.Abandon(bg))
	r.disk = left
}

// proves S12: a small mblock's commit is one flush, which makes its data and its
// record durable; a large one's data is flushed first.
func TestCommitFlushes(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		r.put(p, 1) // and a checkpoint of the counters
		for _, c := range []struct {
			size    int
			flushes uint64
		}{{0, 1}, {1, 1}, {layout.MaxInlineSums * layout.BlockSize, 1}, {layout.MaxInlineSums*layout.BlockSize + 1, 2}} {
			before := p.DriveStats()["sim"].Flushes
			r.put(p, c.size)
			if n := p.DriveStats()["sim"].Flushes - before; n != c.flushes {
				t.Errorf("%d bytes: %d flushes, want %d", c.size, n, c.flushes)
			}
		}
		r.ok(p.Close())
	})
}

// A commit of which a crash left the record without the data never was: for this
// activation and all that follow, also when other things have been committed
// since; and its zones are free.
//
// proves S12
func TestCutOffCommit(t *testing.T) {
	for _, damage := range []string{"lost", "unreadable"} {
		r := newRig(t, 1, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			keep := r.put(p, 5000)
			id := r.put(p, 5000)
			desc, _ := p.table.Lookup(id)
			r.kill(p)
			if damage == "lost" {
				r.disk.FlipBit(desc.Extent.Offset()+4096, 1)
			} else {
				r.disk.SetUnreadable(desc.Extent.Offset(), 4096)
			}
			for i := range 3 {
				var cut []Event
				opt := r.options()
				opt.OnEvent = func(e Event) { cut = append(cut, e) }
				p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, opt)
				r.ok(err)
				if told := len(cut) == 1 && cut[0].Type == EventCommitCut && cut[0].Object == id; told != (i == 0) {
					t.Errorf("activation %d tells %+v", i, cut)
				}
				_, err = p.Mblock(bg, id)
				r.want(api.ENOENT, err)
				other := r.put(p, 100)
				for _, id := range []layout.ObjectID{keep, other} {
					b, err := p.Mblock(bg, id)
					r.ok(err)
					if n, err := b.ReadAt(make([]byte, 100), 0); n != 100 {
						t.Errorf("%v: %d, %v", id, n, err)
					}
					r.ok(b.Put())
				}
				r.ok(noneLost(p))
				r.kill(p)
			}
		})
	}
}

// noneLost says whether space adds up with what the table has.
func noneLost(p *Pool) error {
	i, err := p.Info(bg)
	if err != nil {
		return err
	}
	s := i.Space
	if s.Free+s.Live+s.Uncommitted+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		return api.Errorf(api.ECORRUPT, "test", "space %+v", s)
	}
	return nil
}

// Rot of what was committed is ECORRUPT and nothing else, once a later group, a
// clean close, or a second without commits has said that it was durable.
//
// proves S23, S14
func TestRotOfACommit(t *testing.T) {
	for _, how := range []string{"later", "close", "idle"} {
		r := newRig(t, 1, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			id := r.put(p, 5000)
			desc, _ := p.table.Lookup(id)
			switch how {
			case "later":
				r.put(p, 1)
			case "idle":
				r.ok(r.s.Sleep(bg, 3*fencePeriod))
			}
			if how == "close" {
				r.ok(p.Close())
			} else {
				r.kill(p)
			}
			r.disk.FlipBit(desc.Extent.Offset()+4096, 1)
			p = r.activate()
			b, err := p.Mblock(bg, id)
			r.ok(err)
			_, err = b.ReadAt(make([]byte, 5000), 0)
			r.want(api.ECORRUPT, err)
			r.ok(b.Put())
			r.ok(p.Close())
		})
	}
}

// proves S40: a flush that fails between an mblock's writing and its commit
// poisons the mblock, and nothing else.
func TestFlushFailsBeforeCommit(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 10})
		r.ok(err)
		_, err = b.Write(bg, []byte("0123456789"))
		r.ok(err)
		d := p.metaDrive().dev
		r.disk.Inject(devsim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
		if d.Flush(bg, d.Ticket()) == nil {
			t.Error("a flush did not fail")
		}
		r.disk.Heal()
		r.want(api.EIO, b.Commit(bg))
		r.ok(b.Abort(bg))
		r.put(p, 10)
		if n := p.meta.unflushed.Load(); n != 0 {
			t.Errorf("%d commits are counted as under way", n)
		}
		r.ok(p.Close())
	})
}

// An activation that drops what was cut off and cannot record that is over, with
// no task of it left; the next one finds out the same.
func TestDropCannotBeRecorded(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 5000)
		desc, _ := p.table.Lookup(id)
		from, to := metaRange(p)
		r.kill(p)
		r.disk.FlipBit(desc.Extent.Offset(), 1)
		r.disk.Inject(devsim.Fault{Code: bdev.OpWrite, From: from, To: to, Err: syscall.EIO})
		if _, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options()); err == nil {
			t.Error("activated")
		}
		r.disk.Heal()
		r.ok(r.s.Sleep(bg, time.Minute))
		p = r.activate()
		_, err := p.Mblock(bg, id)
		r.want(api.ENOENT, err)
		r.ok(p.Close())
	})
}

// An activation that finds a commit cut off may be cut off itself while it
// records that. What it left of its record's pages says of the last group of the
// log that it was durable; of the data that is no proof.
//
// proves S12, S45
func TestDropIsCutOff(t *testing.T) {
	for _, lost := range []string{"tail", "page"} {
		r := newRig(t, 1, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			r.put(p, 1)
			// The record of the drop is to begin in one page and end in the next.
			rest := func() int64 {
				used, _ := p.meta.mdc.Usage()
				return mlog.PayloadSize - used%mlog.PayloadSize
			}
			one, drop := recordBytes(2), int64(mlog.FragmentHeader+1+omf.DeleteBytes)
			for rest() < one || rest() >= one+drop {
				n := layout.MaxInlineSums
				for n > 0 && rest()-recordBytes(n) < one {
					n--
				}
				r.put(p, n*layout.BlockSize)
			}
			id := r.put(p, 5000)
			desc, _ := p.table.Lookup(id)
			from, to := metaRange(p)
			slots := from + mlog.SlotPages*mlog.PageSize
			r.kill(p)
			r.disk.FlipBit(desc.Extent.Offset(), 1)
			fault := devsim.Fault{Code: bdev.OpWrite, From: from, To: slots, Effect: devsim.EffectLost}
			if lost == "page" {
				fault.From, fault.To = slots, to
			}
			r.disk.Inject(fault)
			p = r.activate()
			if r.disk.FaultHits()[0] == 0 {
				t.Errorf("%s: nothing was written there", lost)
			}
			r.kill(p)
			r.disk.Heal()
			if notes := r.check().Notes; !slices.ContainsFunc(notes, func(p check.Problem) bool {
				return p.Code == check.CommitCut && p.Object == id
			}) {
				t.Errorf("%s: the checker does not see that the commit was cut off: %v", lost, notes)
			}
			for range 2 {
				p = r.activate()
				_, err := p.Mblock(bg, id)
				r.want(api.ENOENT, err)
				r.ok(noneLost(p))
				r.ok(p.Close())
				r.check()
			}
		})
	}
}

// recordBytes is what the commit of an mblock with n checksums takes of the log.
func recordBytes(n int) int64 { return mlog.FragmentHeader + 1 + 4 + omf.CreateBytes(n) }

// A commit is not given up because the drive reads nothing just now: activation
// fails, at whatever read that begins, and a later one finds the object.
//
// proves S12, S40
func TestDriveFailsWhileCommitsAreVerified(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 5000)
		r.kill(p)
		left := r.disk
		for skip := uint64(0); ; skip++ {
			r.disk = left.Clone()
			r.disk.Inject(devsim.Fault{Code: bdev.OpRead, Skip: skip, Err: syscall.EIO})
			p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
			done := r.disk.FaultHits()[0] == 0
			r.disk.Heal()
			if err == nil {
				r.ok(p.Close())
			}
			p = r.activate()
			b, err := p.Mblock(bg, id)
			r.ok(err)
			r.ok(b.Put())
			r.ok(p.Close())
			if done {
				return
			}
		}
	})
}

// image is a disk as the offline checker reads it.
type image struct{ *devsim.Disk }

func (image) Path() string { return "sim" }
func (image) Close() error { return nil }

// check has the offline checker look at the disk: it must find no problem.
func (r *rig) check() check.Report {
	r.t.Helper()
	report, err := check.Run(bg, []string{"sim"}, check.Options{
		Data: true, Reads: 1,
		Open: func(context.Context, string) (check.Source, error) { return image{r.disk}, nil },
	})
	r.ok(err)
	for _, p := range report.Problems {
		r.t.Errorf("the checker finds %v", p)
	}
	return report
}

// However long the drive takes: in the end the log says of each commit that it
// was durable, also of one that came into a new log by a compaction.
//
// proves S23
func TestSlowCommitsAreConfirmed(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race")
	}
	for _, compact := range []bool{false, true} {
		for wait := time.Duration(0); wait < 16*time.Second; wait += 500 * time.Millisecond {
			r := newRig(t, 1, 64<<20)
			r.run(func() {
				r.create(api.CreateOptions{})
				p := r.activate()
				r.put(p, 1)
				r.disk.Inject(devsim.Fault{Code: bdev.OpFlush, Delay: 2500 * time.Millisecond})
				if compact {
					p.meta.mu.Lock()
					p.meta.compactLocked()
					p.meta.mu.Unlock()
				}
				r.ok(r.s.Sleep(bg, wait))
				id := r.put(p, 5000)
				desc, _ := p.table.Lookup(id)
				r.ok(r.s.Sleep(bg, 30*time.Second))
				r.kill(p)
				r.disk.Heal()
				r.disk.FlipBit(desc.Extent.Offset(), 1)
				p = r.activate()
				b, err := p.Mblock(bg, id)
				if err != nil {
					t.Fatalf("compaction %v, after %v: %v", compact, wait, err)
				}
				r.ok(b.Put())
				r.ok(p.Close())
			})
		}
	}
}
