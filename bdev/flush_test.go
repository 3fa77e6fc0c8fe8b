package bdev

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/sched"
)

// fakeEngine is a drive of one MiB that does nothing, in either world: flushes
// end when the test says so and as it says, all else ends at once.
type fakeEngine struct {
	flushes chan *Op // real world
	held    []*Op    // simulation
	s       *sched.Sched
}

func (e *fakeEngine) Geometry() Geometry {
	return Geometry{Path: "fake", Size: 1 << 20, LogicalSector: 512, PhysicalSector: 512}
}
func (e *fakeEngine) Name() string { return "fake" }
func (e *fakeEngine) Start(ops []*Op) {
	for _, o := range ops {
		switch {
		case o.Code != OpFlush:
			o.Complete(nil)
		case e.s.Simulated():
			e.held = append(e.held, o)
		default:
			e.flushes <- o
		}
	}
}
func (e *fakeEngine) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }
func (e *fakeEngine) Close() error                                         { return nil }

// next waits for a flush to have begun.
func (e *fakeEngine) next(s *sched.Sched) *Op {
	if !s.Simulated() {
		return <-e.flushes
	}
	for len(e.held) == 0 {
		if err := s.Sleep(context.Background(), time.Microsecond); err != nil {
			panic(err)
		}
	}
	o := e.held[0]
	e.held = e.held[1:]
	return o
}

// worlds runs a test in the real world and in simulations.
func worlds(t *testing.T, f func(t *testing.T, s *sched.Sched)) {
	t.Helper()
	t.Run("real", func(t *testing.T) { f(t, nil) })
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			s := sched.New(seed)
			if err := s.Run(func() { f(t, s) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// flusherCalls are callers of Flush in tasks of their own.
type flusherCalls struct {
	s    *sched.Sched
	d    *Drive
	done []*sched.Completion
	errs []*error
}

func (c *flusherCalls) flush(t Ticket) {
	done, err := new(sched.Completion), new(error)
	done.Init(c.s)
	c.done, c.errs = append(c.done, done), append(c.errs, err)
	c.s.Go("flush", func() {
		*err = c.d.Flush(context.Background(), t)
		done.Done()
	})
}

// wait waits for caller i and returns his error.
func (c *flusherCalls) wait(i int) error {
	if err := c.done[i].Wait(context.Background()); err != nil {
		return err
	}
	return *c.errs[i]
}

// waiting waits until so many callers wait for a flush.
func waiting(s *sched.Sched, d *Drive, n int) {
	for {
		d.flush.mu.Lock()
		w := d.flush.waiting
		d.flush.mu.Unlock()
		if w == n {
			return
		}
		if err := s.Sleep(context.Background(), time.Microsecond); err != nil {
			panic(err)
		}
	}
}

// Callers that come while a flush runs share the next one; the first caller's
// flush covers none of them.
func TestFlushIsShared(t *testing.T) {
	worlds(t, func(t *testing.T, s *sched.Sched) {
		t.Helper()
		e := &fakeEngine{flushes: make(chan *Op, 8), s: s}
		d := NewDrive(s, e)
		c := &flusherCalls{s: s, d: d}
		c.flush(d.Ticket())
		first := e.next(s)
		for range 9 {
			c.flush(d.Ticket())
		}
		waiting(s, d, 10)
		first.Complete(nil)
		if err := c.wait(0); err != nil {
			t.Errorf("first caller: %v", err)
		}
		second := e.next(s)
		for i, done := range c.done[1:] {
			if done.IsDone() {
				t.Errorf("caller %d was told before a flush that covers him ended", i+1)
			}
		}
		second.Complete(nil)
		for i := 1; i < 10; i++ {
			if err := c.wait(i); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		}
		if n := d.Stats().Flushes; n != 2 {
			t.Errorf("%d flushes for 10 callers, want 2", n)
		}
	})
}

// A failed flush fails everybody whose ticket is older, also those whom a
// later flush, which succeeds, would cover; and nobody whose ticket is newer.
//
// proves S40
func TestFailedFlushIsForEver(t *testing.T) {
	worlds(t, func(t *testing.T, s *sched.Sched) {
		t.Helper()
		e := &fakeEngine{flushes: make(chan *Op, 8), s: s}
		d := NewDrive(s, e)
		c := &flusherCalls{s: s, d: d}
		old := d.Ticket()
		c.flush(old)
		bad := e.next(s)
		c.flush(old) // waits for the flush after the bad one
		waiting(s, d, 2)
		bad.Complete(syscall.EIO)
		for i := range 2 {
			if err := c.wait(i); !errors.Is(err, ErrFlushFailed) {
				t.Errorf("caller %d of the failed flush: %v", i, err)
			}
		}
		e.next(s).Complete(nil) // the second caller's, who no longer waits
		if err := d.Flush(context.Background(), old); !errors.Is(err, ErrFlushFailed) {
			t.Errorf("a good flush made good what a bad one lost: %v", err)
		}
		c.flush(d.Ticket())
		e.next(s).Complete(nil)
		if err := c.wait(2); err != nil {
			t.Errorf("a writer after the failure: %v", err)
		}
		if st := d.Stats(); st.FlushFailures != 1 || st.Errors != 1 {
			t.Errorf("counters %+v", st)
		}
	})
}

func TestFlushEndsWithItsContext(t *testing.T) {
	worlds(t, func(t *testing.T, s *sched.Sched) {
		t.Helper()
		e := &fakeEngine{flushes: make(chan *Op, 8), s: s}
		d := NewDrive(s, e)
		ctx, cancel := s.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		if err := d.Flush(ctx, d.Ticket()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush = %v", err)
		}
		e.next(s).Complete(nil)
	})
}
