// Package measure repeats an operation from a number of goroutines and says how
// often per second, at what latency and at what cost in processor time.
//
// The programs behind scripts/bench.sh use it for both sides of a comparison,
// so that both are counted alike.
package measure

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Result is what one run measured. Times are in seconds or, where a name ends
// with US, in microseconds.
type Result struct {
	Ops     int64
	Seconds float64 // wall time
	Bytes   int64   // moved in all, where that means something
	CPUUS   float64 // processor time of the process, user and system, in all
	// DaemonUS is the processor time of the daemon that the process used; 0: none.
	DaemonUS float64 `json:",omitempty"`
	P50US    float64
	P99US    float64
	P999US   float64
	// Zone is the zone size of the pool in bytes; 0: no pool.
	Zone int64 `json:",omitempty"`
	// Extra has what only one row needs.
	Extra map[string]float64 `json:",omitempty"`
}

// Rate returns operations per second.
func (r *Result) Rate() float64 { return float64(r.Ops) / r.Seconds }

// Bandwidth returns bytes per second.
func (r *Result) Bandwidth() float64 { return float64(r.Bytes) / r.Seconds }

// CPU returns microseconds of processor time per operation, the daemon's
// included.
func (r *Result) CPU() float64 { return (r.CPUUS + r.DaemonUS) / float64(max(r.Ops, 1)) }

// DaemonCPU returns the daemon's microseconds of processor time per operation.
func (r *Result) DaemonCPU() float64 { return r.DaemonUS / float64(max(r.Ops, 1)) }

// Print writes the result to standard output, for the program that started this
// one.
func (r *Result) Print() error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	_, err = os.Stdout.Write(append(b, '\n'))
	return err
}

// ErrStop ends a run early, without failing it. ErrEnd ends one worker's part.
var (
	ErrStop = errors.New("stop")
	ErrEnd  = errors.New("end")
)

// Plan says how often to repeat: until a time is over, or a number of
// operations were begun.
type Plan struct {
	Workers int
	Time    time.Duration // 0: no limit
	Ops     int64         // 0: no limit
	Daemon  int           // process whose processor time counts too; 0: none
}

// Run calls op from p.Workers goroutines at once, again and again, with the
// worker's number. It returns the first error other than ErrStop.
func Run(p Plan, op func(worker int) error) (*Result, error) {
	var left atomic.Int64
	left.Store(p.Ops)
	if p.Ops == 0 {
		left.Store(1 << 62)
	}
	var stopped atomic.Bool
	all := make([]Latencies, p.Workers)
	errs := make([]error, p.Workers)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for w := range p.Workers {
		ready.Add(1)
		all[w].grow()
		done.Go(func() {
			ready.Done()
			<-start
			errs[w] = repeat(p, &left, &stopped, &all[w], func() error { return op(w) })
		})
	}
	ready.Wait()
	clock := StartWith(p.Daemon)
	close(start)
	done.Wait()
	r := clock.Stop()
	r.Latencies(all...)
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrStop) {
			return nil, err
		}
	}
	return r, nil
}

// repeat is one worker's part of a run.
func repeat(p Plan, left *atomic.Int64, stopped *atomic.Bool, l *Latencies, op func() error) error {
	at := time.Now()
	end := at.Add(p.Time)
	for left.Add(-1) >= 0 && !stopped.Load() && (p.Time == 0 || at.Before(end)) {
		if err := op(); errors.Is(err, ErrEnd) {
			return nil
		} else if err != nil {
			stopped.Store(true)
			return err
		}
		now := time.Now()
		l.Add(now.Sub(at))
		at = now
	}
	return nil
}

// Clock measures wall and processor time from Start to Stop.
type Clock struct {
	at          time.Time
	cpu, theirs time.Duration
	daemon      int
}

// Start starts a clock for this process.
func Start() Clock { return StartWith(0) }

// StartWith starts a clock for this process and for a daemon, a process's id; 0:
// none.
func StartWith(daemon int) Clock {
	return Clock{at: time.Now(), cpu: processTime(), daemon: daemon, theirs: ProcessTime(daemon)}
}

// Stop returns a result with the times since the start.
func (c Clock) Stop() *Result {
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	return &Result{
		Seconds: time.Since(c.at).Seconds(), CPUUS: us(processTime() - c.cpu), DaemonUS: us(ProcessTime(c.daemon) - c.theirs),
	}
}

// processTime returns the processor time that this process has used, its kernel
// workers included.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(fmt.Sprintf("measure: getrusage: %v", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ProcessTime returns the processor time that another process has used, its
// threads that have ended and its kernel workers included, to the nanosecond; 0
// for process 0, or for one that is not there.
func ProcessTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	const scheduled = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|scheduled), uintptr(unsafe.Pointer(&t)), 0)
	if errno != 0 {
		return 0
	}
	return time.Duration(t.Nano())
}

// Latencies collects the time that each operation took. Not safe for concurrent
// use.
type Latencies struct {
	ns []uint32
}

// latencyRoom is for how many operations there is room from the beginning.
const latencyRoom = 1 << 16

func (l *Latencies) grow() { l.ns = make([]uint32, 0, latencyRoom) }

// Add adds one operation.
func (l *Latencies) Add(d time.Duration) {
	l.ns = append(l.ns, uint32(min(max(d, 0), 1<<32-1)))
}

// Len returns how many operations were added.
func (l *Latencies) Len() int { return len(l.ns) }

// Latencies sets the result's operations and percentiles from what was
// collected.
func (r *Result) Latencies(from ...Latencies) {
	var all []uint32
	for _, l := range from {
		all = append(all, l.ns...)
	}
	slices.Sort(all)
	r.Ops = int64(len(all))
	if len(all) == 0 {
		return
	}
	at := func(q float64) float64 { return float64(all[min(int(q*float64(len(all))), len(all)-1)]) / 1e3 }
	r.P50US, r.P99US, r.P999US = at(0.50), at(0.99), at(0.999)
}
