package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/scope"
)

// Snapshot is what the daemon holds and has counted, for metrics. Its parts are
// read one after another, each as it is at its moment.
type Snapshot struct {
	Sessions   int
	Handles    int          // of all sessions
	ArenaBytes int64        // shared memory of all sessions
	HugeBytes  int64        // of this on huge pages
	Ops        []OpSnapshot // those ever asked for
	Events     []EventCount
	Reaped     []ReapedCount
	Pools      []PoolSnapshot // the active ones, sorted by name
	Loops      []LoopSnapshot // the I/O loops that have been started
	// Scopes are those that are few: not of clients, users and sessions.
	Scopes  []scope.Entry
	Refused []RefusedCount // by all scopes
	// WrongBooks are sessions that were ended because the server gave back for them what
	// it had not reserved.
	WrongBooks uint64
}

// RefusedCount says how often a kind was refused since the start.
type RefusedCount struct {
	Kind  string
	Count uint64
}

// OpSnapshot counts one operation of the protocol since the start.
type OpSnapshot struct {
	Name          string // such as "mblock commit"
	Count, Errors uint64 // answered; with an error
	Bytes         uint64 // of data, in or out
	Total         time.Duration
	Latency       []Bucket
}

// Bucket counts what took less than Below and no less than the bucket before;
// Below is 0 in the last one, which has no end.
type Bucket struct {
	Below time.Duration
	Count uint64
}

// EventCount says how many events of a type there were since the start. Types
// that there were none of are there too.
type EventCount struct {
	Type  string
	Count uint64
}

// ReapedCount says how many clients ended in one way since the start.
type ReapedCount struct {
	Cause, DetectedBy string
	Count             uint64
}

// PoolSnapshot is one pool of a [Snapshot].
type PoolSnapshot struct {
	Info       api.PoolInfo
	Handles    int64 // of all sessions
	Orphans    int64 // uncommitted objects of sessions that have ended, in use or being committed
	TableBytes int64 // memory of the layout table
	SumBytes   int64 // memory of checksums that are kept in it
	Drives     []DriveSnapshot
	Credits    CreditsSnapshot
}

// CreditsSnapshot is what a pool's creditor lends and has counted since the pool was
// activated.
type CreditsSnapshot struct {
	Objects  int    // of which somebody has a credit or waits for one
	Debtors  int    // handles of the pool that borrow
	Messages uint64 // from clients
	Fenced   uint64 // credits taken from who did not give them back in time
}

// DriveSnapshot is what a drive did since it was opened.
type DriveSnapshot struct {
	ioctl.DriveCounters
	InFlight int64 // operations under way
}

// Snapshot returns what the daemon holds and has counted. It takes only locks
// that nobody holds across I/O: a stalled drive does not hold it up.
func (s *Server) Snapshot() Snapshot {
	v := Snapshot{ArenaBytes: s.arenaBytes.Load(), Events: s.tally.events(), Reaped: s.tally.reaped()}
	ops, _ := s.ops.upTo(0, ioctl.NumOps)
	for i := range ops {
		v.Ops = append(v.Ops, opSnapshot(&ops[i]))
	}
	for _, sess := range s.all() {
		v.Sessions++
		v.Handles += sess.table.Len()
		v.HugeBytes += sess.hugeBytes()
	}
	v.Loops = s.loops.snapshot()
	v.Scopes, v.Refused, v.WrongBooks = s.opt.Scopes.snapshot()
	for _, a := range s.pools.list() {
		if p, ok := a.snapshot(); ok {
			v.Pools = append(v.Pools, p)
		}
	}
	return v
}

func opSnapshot(o *ioctl.OpCounters) OpSnapshot {
	v := OpSnapshot{
		Name: o.Op.Name(), Count: o.Count, Errors: o.Errors, Bytes: o.Bytes, Total: o.Total,
		Latency: make([]Bucket, ioctl.NumBuckets),
	}
	for i, n := range o.Buckets {
		v.Latency[i].Count = n
		if i < ioctl.NumBuckets-1 {
			v.Latency[i].Below = time.Microsecond << i
		}
	}
	return v
}

// measured is what a pool of package mpool tells besides what [Pool] has.
type measured interface {
	DriveStats() map[string]bdev.Stats
	MemoryBytes() (table, sums int64)
	CacheBytes() int64
	MemoryGrowths() uint64
}

// snapshot returns false if the pool is just being closed.
func (a *activePool) snapshot() (PoolSnapshot, bool) {
	info, err := a.pool.Info(context.Background())
	if err != nil {
		return PoolSnapshot{}, false
	}
	v := PoolSnapshot{Info: info, Handles: a.handles.Load(), Orphans: a.orphans.Load()}
	c := &v.Credits
	c.Objects, c.Debtors = a.credits.root.Size()
	c.Messages, c.Fenced = a.credits.messages.Load(), a.credits.fenced.Load()
	var stats map[string]bdev.Stats
	if m, ok := a.pool.(measured); ok {
		stats = m.DriveStats()
		v.TableBytes, v.SumBytes = m.MemoryBytes()
	}
	for _, c := range a.pool.DriveCounters() {
		v.Drives = append(v.Drives, DriveSnapshot{DriveCounters: c, InFlight: stats[c.Path].InFlight})
	}
	return v, true
}

// The kinds of event, cause and source that are counted apart.
const (
	numEvents  = int(ioctl.EventCommitCut) + 1
	numCauses  = int(ioctl.CauseClosed) + 1
	numSources = int(ioctl.SourceShutdown) + 1
)

// tally counts events since the start. Safe for concurrent use.
type tally struct {
	byType [numEvents]atomic.Uint64
	byEnd  [numCauses][numSources]atomic.Uint64
}

// add counts an event.
func (t *tally) add(e *ioctl.Event) {
	if int(e.Type) < numEvents {
		t.byType[e.Type].Add(1)
	}
	if e.Type == ioctl.EventClientReaped && int(e.Cause) < numCauses && int(e.DetectedBy) < numSources {
		t.byEnd[e.Cause][e.DetectedBy].Add(1)
	}
}

func (t *tally) events() []EventCount {
	var list []EventCount
	for i := range t.byType {
		if typ := ioctl.EventType(i); typ >= ioctl.EventPoolActivated {
			list = append(list, EventCount{typ.String(), t.byType[i].Load()})
		}
	}
	return list
}

func (t *tally) reaped() []ReapedCount {
	var list []ReapedCount
	for c := range t.byEnd {
		for d := range t.byEnd[c] {
			if n := t.byEnd[c][d].Load(); n > 0 {
				list = append(list, ReapedCount{ioctl.Cause(c).String(), ioctl.Source(d).String(), n})
			}
		}
	}
	return list
}

// LoopSnapshot is what an I/O loop serves and has done.
type LoopSnapshot struct {
	Sessions, Rings int64
	Wakeups         uint64 // from sleep
	Ops             uint64 // descriptors answered
	Bytes           uint64 // of data
	Slow            uint64 // descriptors that had to wait in a lane
	Rereads         uint64 // reads that did not match in the client's memory, and were read again
	EmptyBells      uint64 // that rang for nothing
	Registered      int64  // arenas registered with the kernel
	Plain           int64  // arenas that are not
	Listeners       int64  // rings that a goroutine listens to, for want of a better way
}

// snapshot returns what the loops have done.
func (ls *ioLoops) snapshot() []LoopSnapshot {
	loops := ls.all()
	list := make([]LoopSnapshot, 0, len(loops))
	for _, l := range loops {
		c := &l.count
		list = append(list, LoopSnapshot{
			Sessions: c.sessions.Load(), Rings: c.rings.Load(), Wakeups: c.wakeups.Load(), Ops: c.ops.Load(),
			Bytes: c.bytes.Load(), Slow: c.slow.Load(), Rereads: c.rereads.Load(), EmptyBells: c.emptied.Load(),
			Registered: c.registered.Load(), Plain: c.plain.Load(), Listeners: c.ears.Load(),
		})
	}
	return list
}
