package history

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
)

// call is one call of a client, or a kill of the daemon.
type call struct {
	Do      string   // which
	Key     uint64   // whose history it is in: an object's or a log's id; 0: the roots'
	Worker  int      // who made it
	Process int      // in which process
	Conn    int      // on which of all connections
	Handle  uint64   // that it used
	Given   uint64   // that it gave
	N       uint64   // record number, generation, count
	Record  uint64   // a record's content, an object's tag
	Sync    bool     // of an append
	Want    uint64   // of a sync: the records that were answered before it; of an erase: the least generation
	Roots   []uint64 // what roots are to be, or are, by their place in rootNames; unchanged: what stays
	Batch   int      // objects that are committed together
	Code    api.Code // 0: done
	Begin   int64    // ns
	End     int64
	Text    string // of an error

	// Torn says that a kill of the daemon came between.
	Torn bool
	// Kills is how many kills were over when it began.
	Kills int
}

// The calls.
const (
	doKill = "kill"

	doAlloc  = "alloc"
	doFind   = "find"
	doGet    = "get"
	doPut    = "put"
	doInfo   = "info"
	doCommit = "commit"
	doAbort  = "abort"
	doDelete = "delete"

	doSet        = "set"
	doRoots      = "roots"
	doCommitMany = "commit many"
	doLook       = "look" // for an object of a batch

	doOpen     = "open"
	doClose    = "close"
	doAppend   = "append"
	doSync     = "sync"
	doReader   = "reader"
	doUnreader = "close reader"
	doNext     = "next"
	doSeek     = "seek"
	doErase    = "erase"
	doLogInfo  = "log info"
)

// unchanged stands in call.Roots for a root that is not named.
const unchanged = ^uint64(0)

// endOfLog stands in call.Record for the end.
const endOfLog = ^uint64(0)

func (c *call) String() string {
	out := "ok"
	if c.Code != 0 {
		out = c.Code.Error()
	}
	s := fmt.Sprintf("%s key=%x", c.Do, c.Key)
	for _, f := range []struct {
		name string
		v    uint64
	}{{"handle", c.Handle}, {"given", c.Given}, {"n", c.N}, {"record", c.Record}, {"want", c.Want}, {"batch", uint64(c.Batch)}} {
		if f.v != 0 {
			s += fmt.Sprintf(" %s=%x", f.name, f.v)
		}
	}
	if c.Sync {
		s += " sync"
	}
	if c.Roots != nil {
		s += fmt.Sprintf(" roots=%x", c.Roots)
	}
	if c.Torn {
		s += " torn"
	}
	return fmt.Sprintf("p%d c%d w%d: %s -> %s", c.Process, c.Conn, c.Worker, s, out)
}

// now is the moment, in ns.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// own is a number of the call's that no handle has.
func (c *call) own() uint64 { return uint64(c.Begin)<<8 | uint64(c.Worker) }

// recorder keeps calls. Safe for concurrent use.
type recorder struct {
	process int
	handles atomic.Uint64

	mu sync.Mutex
	// +checklocks:mu
	calls []*call
}

// fresh gives a number that nobody else gives.
func (r *recorder) fresh() uint64 { return uint64(r.process)<<40 | r.handles.Add(1) }

// processOf says whose a number is that fresh gave.
func processOf(fresh uint64) int { return int(fresh >> 40) }

// call makes a call and records it.
func (r *recorder) call(c *call, do func(c *call) error) error {
	c.Process = r.process
	c.Begin = now()
	err := do(c)
	c.End = now()
	if err != nil {
		c.Code, c.Text = api.CodeOf(err), err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	return err
}

// take returns what was recorded and begins anew.
func (r *recorder) take() []*call {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.calls
	r.calls = nil
	return list
}
