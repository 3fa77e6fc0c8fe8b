package mlog

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// logsTogether is how many logs share a drive's writers in these tests.
const logsTogether = 8

// manyLogs runs f in a simulation with logs on one drive that are written together.
func manyLogs(t *testing.T, seed uint64, f func(s *sched.Sched, disk *sim.Disk, logs []*Log) error) {
	t.Helper()
	const blocks = SlotPages + 1000
	r := simRig(t, seed, logsTogether*blocks)
	err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
		c.Writers = NewWriters(s, c.Drive)
		var logs []*Log
		for i := range uint32(logsTogether) {
			c := c
			c.Birth = layout.BirthStamp(100 + i)
			c.Extent = layout.Extent{Start: testStart + SlotPages + uint64(i)*blocks, Blocks: blocks}
			if err := Format(bg, c, 0); err != nil {
				return err
			}
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			logs = append(logs, l)
		}
		return f(s, r.disk, logs)
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}

// closeAll closes logs.
func closeAll(logs []*Log) error {
	var errs []error
	for _, l := range logs {
		errs = append(errs, l.Close(bg))
	}
	return errors.Join(errs...)
}

// Appenders of a log each, who come again when they are told, share flushes.
func TestLogsShareFlushes(t *testing.T) {
	const rounds = 50
	for seed := range seeds(20) {
		manyLogs(t, seed, func(s *sched.Sched, _ *sim.Disk, logs []*Log) error {
			before := logs[0].c.Drive.Stats().Flushes
			if err := tasks(s, appendersOf(s, logs, rounds)...); err != nil {
				return err
			}
			n := logs[0].c.Drive.Stats().Flushes - before
			if n > rounds*logsTogether/4 {
				return fmt.Errorf("%d flushes for %d appends to %d logs", n, rounds*logsTogether, logsTogether)
			}
			return closeAll(logs)
		})
	}
}

// appendersOf are appenders of a log each, one append after another.
func appendersOf(s *sched.Sched, logs []*Log, rounds int) []func() error {
	var list []func() error
	for _, l := range logs {
		list = append(list, func() error {
			for range rounds {
				if err := round(l, s, 1, 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return list
}

// What fails for one log of those that are written together is that log's alone,
// but for a flush: that is all of theirs.
func TestWhatFailsTogether(t *testing.T) {
	for _, code := range []bdev.OpCode{bdev.OpWrite, bdev.OpFlush} {
		for seed := range seeds(30) {
			manyLogs(t, seed, func(s *sched.Sched, disk *sim.Disk, logs []*Log) error {
				f := sim.Fault{Code: code, Count: 1, Err: syscall.EIO}
				if code == bdev.OpWrite {
					e := logs[3].c.Extent
					f.From, f.To = e.Offset(), e.Offset()+e.Size()
				}
				got, err := appendTogether(s, logs, func() { disk.Inject(f) })
				if err != nil {
					return err
				}
				for i, err := range got {
					failed := i > 0 && (code == bdev.OpFlush || i == 3)
					if failed && api.CodeOf(err) != api.EUNKNOWN || failed != (err != nil) || failed != (logs[i].Err() != nil) {
						return fmt.Errorf("%v, log %d: %w, %w", code, i, err, logs[i].Err())
					}
					if e := logs[i].Close(bg); (e != nil) != failed {
						return fmt.Errorf("%v, close log %d: %w", code, i, e)
					}
				}
				return nil
			})
		}
	}
}

// appendTogether appends to the first log, and when that is told, after a call of
// then, to all others, which so are written in one round. It returns what each is
// told.
func appendTogether(s *sched.Sched, logs []*Log, then func()) ([]error, error) {
	got := make([]error, len(logs))
	told := newCalls(s, len(logs))
	begin := func(i int, after func()) error {
		_, err := logs[i].BeginAppend(func(err error) {
			got[i] = err
			after()
			told.done(nil)
		}, []byte("record"))
		return err
	}
	var errs []error
	err := begin(0, func() {
		then()
		for i := 1; i < len(logs); i++ {
			errs = append(errs, begin(i, func() {}))
		}
	})
	if err != nil {
		return nil, err
	}
	err = told.end.Wait(bg)
	return got, errors.Join(append(errs, err)...)
}

// A log with much to write is written apart from others, and they and it come to
// their ends.
func TestMuchIsWrittenApart(t *testing.T) {
	for seed := range seeds(20) {
		manyLogs(t, seed, func(s *sched.Sched, _ *sim.Disk, logs []*Log) error {
			told := newCalls(s, 1)
			if _, err := logs[0].BeginAppend(told.done, record(0, 2<<20)); err != nil {
				return err
			}
			if err := tasks(s, appendersOf(s, logs[1:], 10)...); err != nil {
				return err
			}
			if err := errors.Join(told.end.Wait(bg), told.errs[0]); err != nil {
				return err
			}
			if err := round(logs[0], s, 3, 0); err != nil {
				return err
			}
			return closeAll(logs)
		})
	}
}

// Logs that have much to write, each not so much that it is written apart for that, do
// not hold up one that has little.
func TestMuchOfManyIsWrittenApart(t *testing.T) {
	const (
		slow  = 10 * time.Second // takes one that is to share no round with the victim
		pages = 100              // of each of the others
	)
	for seed := range seeds(20) {
		manyLogs(t, seed, func(s *sched.Sched, disk *sim.Disk, logs []*Log) error {
			var start, end time.Time
			rest, victim := newCalls(s, len(logs)-1), newCalls(s, 1)
			var errs []error
			// When the first is told there is a round of all others; the victim is the last.
			_, err := logs[0].BeginAppend(func(err error) {
				rest.done(err)
				e := logs[len(logs)-2].c.Extent // beyond the round's pages
				disk.Inject(sim.Fault{Code: bdev.OpWrite, From: e.Offset(), To: e.Offset() + e.Size(), Delay: slow})
				start = s.Now()
				for i, l := range logs[1:] {
					done, size := rest.done, pages*PageSize
					if i == len(logs)-2 {
						done, size = func(err error) { end = s.Now(); victim.done(err) }, 100
					}
					_, err := l.BeginAppend(done, record(uint64(i), size))
					errs = append(errs, err)
				}
			}, []byte("record"))
			if err := errors.Join(err, rest.end.Wait(bg), victim.end.Wait(bg)); err != nil {
				return err
			}
			if err := errors.Join(append(append(errs, rest.errs...), victim.errs...)...); err != nil {
				return err
			}
			if d := end.Sub(start); d >= slow {
				return fmt.Errorf("a small record has waited for the large ones of other logs: %v", d)
			}
			return closeAll(logs)
		})
	}
}

// What is left when somebody who wrote a log himself has what he waited for is written
// by the drive's writers, not by a task of the log's own.
func TestRestGoesToWriters(t *testing.T) {
	left := 0
	for seed := range seeds(50) {
		manyLogs(t, seed, func(s *sched.Sched, _ *sim.Disk, logs []*Log) error {
			l := logs[0]
			told := newCalls(s, 20)
			err := tasks(s, func() error {
				for range 20 {
					if _, err := l.AppendSync(bg, []byte("record")); err != nil {
						return err
					}
					l.mu.Lock()
					writing, together := l.writing, l.c.Writers.alive()
					l.mu.Unlock()
					if writing && !together {
						return errors.New("the log has a writer of its own")
					}
					if writing {
						left++
					}
				}
				return nil
			}, func() error {
				for range 20 {
					if _, err := l.BeginAppend(told.done, []byte("begun")); err != nil {
						return err
					}
					if err := s.Sleep(bg, time.Duration(s.Rand().IntN(200))*time.Microsecond); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, told.end.Wait(bg), errors.Join(told.errs...), closeAll(logs))
		})
	}
	if left == 0 {
		t.Error("nothing was ever left to be written")
	}
}

// alive says whether the task is.
func (w *Writers) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}
