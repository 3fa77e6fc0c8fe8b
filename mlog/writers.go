package mlog

import (
	"context"
	"sync/atomic"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Bounds of what is written together.
const (
	togetherPages = 128  // full pages of a log's group; a larger one is written by a task of its own
	roundPages    = 256  // full pages of all groups; what is beyond, too
	togetherLogs  = 1024 // logs
)

// Writers writes the groups of many logs of one drive together: of all logs that
// have something to write a group each, by one submission, made durable by one
// flush, in one task. Appenders of a log each thereby cost the drive and the
// processors what appenders of one log do. A log uses it for groups that nobody
// writes who waits for them; see [Config]. A task lives only while there is
// something to write. Safe for concurrent use.
//
// A failed write is that of its log alone, a failed flush all logs' of the round. A
// log with much to write gets a task of its own, so that others do not wait for it; and
// so do, when many have something, those that would make the round long.
type Writers struct {
	sched *sched.Sched
	drive *bdev.Drive
	run   func()       // the task's body
	here  atomic.Int64 // who wait to be told, in all logs, without writing themselves

	mu sched.Mutex
	// +checklocks:mu
	logs []*Log // that are to be written, in turn
	// +checklocks:mu
	running bool // the task is alive

	// The task's own.
	turn   []*Log
	parts  []part
	batch  bdev.Batch
	gather gather
}

// part is one log's part in what is written together.
type part struct {
	log *Log
	group
	crc uint32 // of the last full page
	err error
}

// NewWriters makes the writers of a drive.
func NewWriters(s *sched.Sched, d *bdev.Drive) *Writers {
	w := &Writers{sched: s, drive: d}
	w.mu.Init(s, sched.RankDrive)
	w.run = w.write
	return w
}

// add has a log written, whose writer the Writers are from then on.
func (w *Writers) add(l *Log) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs = append(w.logs, l)
	if !w.running {
		w.running = true
		w.sched.Go("mlog writers", w.run)
	}
}

// take takes the logs whose turn it is. If there are none the task is to end.
func (w *Writers) take() []*Log {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.logs), togetherLogs)
	w.turn = append(w.turn[:0], w.logs[:n]...)
	rest := copy(w.logs, w.logs[n:])
	clear(w.logs[rest:])
	w.logs = w.logs[:rest]
	w.running = n > 0
	return w.turn
}

// write is the task.
func (w *Writers) write() {
	for {
		w.gather.wait(w.sched, w.waiting)
		logs := w.take()
		if len(logs) == 0 {
			return
		}
		begun := w.sched.Now()
		if w.writeRound(logs) {
			// Those who are about to be told, and those who have come meanwhile.
			w.gather.expect, w.gather.took = w.waiting(), w.sched.Now().Sub(begun)
			w.endRound()
		}
		clear(w.turn)
		clear(w.parts)
		clear(w.batch.Ops)
	}
}

// waiting returns how many wait to be told.
func (w *Writers) waiting() int { return int(w.here.Load()) }

// writeRound writes a group of each log and flushes. It returns false if there was
// nothing to write.
func (w *Writers) writeRound(logs []*Log) bool {
	w.parts, w.batch.Ops = w.parts[:0], w.batch.Ops[:0]
	left := uint32(roundPages)
	for _, l := range logs {
		if g, begun := l.beginTogether(left); begun {
			left -= g.to.pages - g.from.pages
			r := part{log: l, group: g, crc: l.build(&g)}
			w.batch.Ops = append(w.batch.Ops, l.w.ops[:l.w.used]...)
			w.parts = append(w.parts, r)
		}
	}
	if len(w.parts) == 0 {
		return false
	}
	ctx := context.Background()
	ticket := w.drive.Ticket()
	failed := w.drive.Run(ctx, &w.batch) // of some operation, which says so
	written := failed == nil
	for i := range w.parts {
		r := &w.parts[i]
		if failed != nil {
			r.err = r.log.written()
		}
		written = written || r.err == nil
	}
	if !written {
		return true
	}
	err := w.drive.Flush(ctx, ticket)
	for i := range w.parts {
		r := &w.parts[i]
		switch {
		case r.err != nil:
		case err != nil:
			r.err = err
		case r.owes && r.owed != ticket: // a flush has failed between the two
			r.err = bdev.ErrFlushFailed
		}
	}
	return true
}

// endRound makes it known how a round has ended, lets those run who have waited for
// it, and has those logs written again that have more.
func (w *Writers) endRound() {
	woken := false
	for i := range w.parts {
		r := &w.parts[i]
		l := r.log
		if r.err != nil {
			l.failGroup(&r.group, r.err)
		} else {
			l.w.prev = r.crc
			woken = l.endGroup(&r.group) || woken
		}
	}
	if w.gather.woken = woken; woken {
		w.sched.Yield() // once for all, who else would wait for each other's
	}
	for i := range w.parts {
		w.parts[i].log.goOn()
	}
}

// beginTogether takes a group to be written with others', of no more than left full
// pages. It returns false if none is needed, or the group is too large: then there is
// another writer, or none.
func (l *Log) beginTogether(left uint32) (g group, begun bool) {
	if l.w.slot == nil {
		l.w.slot = bdev.AllocBuffer(PairPages * PageSize)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clean, need := l.needLocked()
	switch {
	case !need:
		l.restWriterLocked()
		return g, false
	case l.pos.page-l.durable.pages > min(togetherPages, left):
		l.c.Sched.Go("mlog writer", l.run)
		return g, false
	}
	return l.beginLocked(clean), true
}

// written returns the error of the group's operations, or nil.
func (l *Log) written() error {
	for _, o := range l.w.ops[:l.w.used] {
		if o.Err != nil {
			return o.Err
		}
	}
	return nil
}

// goOn has the log written again if there is more, and lets it rest if not.
func (l *Log) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, need := l.needLocked(); need {
		l.c.Writers.add(l)
		return
	}
	l.restWriterLocked()
}
