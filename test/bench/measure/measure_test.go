package measure

import (
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// A run does as many operations as it is to, on all workers together, and its
// percentiles are those of what was added.
func TestRun(t *testing.T) {
	var n atomic.Int64
	r, err := Run(Plan{Workers: 4, Ops: 1000}, func(int) error { n.Add(1); return nil })
	if err != nil || n.Load() != 1000 || r.Ops != 1000 {
		t.Errorf("%d operations, %+v, %v", n.Load(), r, err)
	}
	var l Latencies
	for i := range 1000 {
		l.Add(time.Duration(1000-i) * time.Microsecond)
	}
	r.Latencies(l)
	if r.P50US != 501 || r.P99US != 991 || r.P999US != 1000 {
		t.Errorf("percentiles %v, %v, %v", r.P50US, r.P99US, r.P999US)
	}
}

// One worker's end is not the others'; a failure is everybody's.
func TestRunEnds(t *testing.T) {
	left := []int{3, 5}
	r, err := Run(Plan{Workers: 2}, func(w int) error {
		if left[w]--; left[w] < 0 {
			return ErrEnd
		}
		return nil
	})
	if err != nil || r.Ops != 8 {
		t.Errorf("%+v, %v", r, err)
	}
	failure := errors.New("failure")
	if _, err := Run(Plan{Workers: 2}, func(w int) error {
		if w == 1 {
			return failure
		}
		return nil
	}); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}

// The processor time of another process counts what it has done, and nothing
// without one.
func TestProcessTime(t *testing.T) {
	if d := ProcessTime(0); d != 0 {
		t.Errorf("no process: %v", d)
	}
	if d := ProcessTime(os.Getpid()); d <= 0 {
		t.Errorf("this process: %v", d)
	}
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = c.Wait()
		if d := ProcessTime(c.Process.Pid); d != 0 {
			t.Errorf("a process that has ended: %v", d)
		}
	}()
	if d := ProcessTime(c.Process.Pid); d <= 0 {
		t.Errorf("another process: %v", d)
	}
}
