// Package bdevtest is the conformance suite that every bdev.Engine passes, on
// real devices and simulated ones.
//
//	// real: each case is a subtest
//	bdevtest.Run(t, func(t *testing.T) *bdev.Drive { ... bdev.Open(...) })
//
//	// simulated: all cases run in the calling task
//	err := s.Run(func() {
//		bdevtest.Run(t, func(t *testing.T) *bdev.Drive { ... sim.Open(s, ...) })
//	})
package bdevtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// MinSize is the smallest drive, in bytes, that the suite runs on.
const MinSize = 8 << 20

// Run runs the suite. open returns a new drive each time, which the suite
// closes; its content does not matter. A drive of a simulation makes Run run in
// the calling task, without subtests.
func Run(t *testing.T, open func(t *testing.T) *bdev.Drive) {
	t.Helper()
	d := open(t)
	s, size := d.Sched(), d.Geometry().Size
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if size < MinSize {
		t.Errorf("the drive has %d bytes; the suite needs %d", size, MinSize)
		return
	}
	for i, c := range cases {
		if s.Simulated() {
			run(t, c.name+": ", uint64(i), open, c.fn)
			continue
		}
		t.Run(c.name, func(t *testing.T) { run(t, "", uint64(i), open, c.fn) })
	}
}

var cases = []struct {
	name string
	fn   func(e *env)
}{
	{"read back", readBack},
	{"concurrent", concurrent},
	{"vectors", vectors},
	{"refusals", refusals},
	{"flushes are shared", flushes},
	{"discard", discard},
	{"operations nobody waits for", orphans},
	{"context", contexts},
	{"more than fits", overfull},
	{"queue", queue},
	{"queue callbacks", queueCallbacks},
	{"queue wakes", queueWakes},
	{"registered buffers", registered},
	{"counters", counters},
}

// env is what a case works with.
type env struct {
	t      *testing.T
	prefix string
	s      *sched.Sched
	d      *bdev.Drive
	geo    bdev.Geometry
	sector int64
	rng    *rand.Rand
}

func run(t *testing.T, prefix string, seed uint64, open func(t *testing.T) *bdev.Drive, fn func(e *env)) {
	t.Helper()
	d := open(t)
	e := &env{
		t: t, prefix: prefix, s: d.Sched(), d: d, geo: d.Geometry(),
		sector: int64(d.Geometry().LogicalSector), rng: rand.New(rand.NewPCG(seed, 7)),
	}
	fn(e)
	e.must("quiesce", d.Quiesce(context.Background()))
	if n := d.InFlight(); n != 0 {
		e.errorf("%d operations are under way at the end", n)
	}
	if err := d.Close(); err != nil {
		e.errorf("close: %v", err)
	}
}

// errorf reports a failure. Cases go on or return: a task of a simulation must
// not be ended by FailNow.
func (e *env) errorf(format string, args ...any) {
	e.t.Helper()
	e.t.Errorf("%s%s", e.prefix, fmt.Sprintf(format, args...))
}

// must reports an error and says whether there was none.
func (e *env) must(what string, err error) bool {
	e.t.Helper()
	if err != nil {
		e.errorf("%s: %v", what, err)
	}
	return err == nil
}

// run runs operations as one batch, with a context that never ends.
func (e *env) run(ops ...*bdev.Op) error {
	return e.d.Run(context.Background(), &bdev.Batch{Ops: ops})
}

// buffer returns memory of n bytes that the test's end, not the case, frees:
// operations may outlive a case that failed.
func buffer(n int64) []byte { return bdev.AllocBuffer(int(n)) }

// stamp fills a buffer with what belongs at an offset in a version: each 512
// bytes say so at both of their ends.
func stamp(p []byte, offset int64, version uint64) {
	const unit = 512
	clear(p)
	for i := 0; i+unit <= len(p); i += unit {
		for _, v := range []int{i, i + unit - 16} {
			binary.LittleEndian.PutUint64(p[v:], uint64(offset)+uint64(v))
			binary.LittleEndian.PutUint64(p[v+8:], version*0x9e3779b97f4a7c15)
		}
	}
}

// stamped says whether a buffer holds that.
func stamped(p []byte, offset int64, version uint64) bool {
	want := make([]byte, len(p))
	stamp(want, offset, version)
	return bytes.Equal(p, want)
}

// group waits for tasks.
type group struct {
	s    *sched.Sched
	mu   sched.Mutex
	cond sched.Cond
	n    int
}

func newGroup(s *sched.Sched) *group {
	g := &group{s: s}
	g.mu.Init(s, sched.RankLog)
	g.cond.Init(s, &g.mu)
	return g
}

func (g *group) add(n int) {
	g.mu.Lock()
	g.n += n
	g.cond.Broadcast()
	g.mu.Unlock()
}

func (g *group) run(name string, fn func()) {
	g.add(1)
	g.s.Go(name, func() {
		defer g.add(-1)
		fn()
	})
}

func (g *group) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.n > 0 {
		if err := g.cond.Wait(context.Background()); err != nil {
			panic(err)
		}
	}
}
