package main

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// benchView is what a bench measured, as it is shown. Percentiles are upper ends
// of buckets that are a sixteenth wide. Processor time is per operation; that of
// the daemon has what it did for others in it, and is missing where it cannot be
// known.
type benchView struct {
	Row        string `json:"row"`
	Work       string `json:"work"`
	Mode       string `json:"mode"` // blocking or async
	ZeroCopy   bool   `json:"zero_copy"`
	Sequential bool   `json:"sequential"`
	Durable    bool   `json:"durable"`
	SizeBytes  int64  `json:"size_bytes"`
	Depth      int    `json:"depth"`
	DataBytes  int64  `json:"data_bytes"`

	Seconds             float64 `json:"seconds"`
	Operations          uint64  `json:"operations"`
	OperationsPerSecond float64 `json:"operations_per_s"`
	BytesPerSecond      float64 `json:"bytes_per_s"`
	P50US               float64 `json:"p50_us"`
	P99US               float64 `json:"p99_us"`
	P999US              float64 `json:"p999_us"`
	ClientUS            float64 `json:"client_cpu_us"`
	DaemonUS            float64 `json:"daemon_cpu_us,omitempty"`
	Ended               string  `json:"ended,omitempty"` // why before its time
}

// counted returns the view with what depends on how many operations there were.
func (v benchView) counted(l *latencies) benchView {
	v.Operations = l.count
	v.OperationsPerSecond = float64(l.count) / v.Seconds
	v.BytesPerSecond = v.OperationsPerSecond * float64(v.SizeBytes)
	v.P50US, v.P99US, v.P999US = l.percentile(0.5), l.percentile(0.99), l.percentile(0.999)
	v.ClientUS /= float64(max(l.count, 1))
	v.DaemonUS /= float64(max(l.count, 1))
	return v
}

func (v benchView) show(w io.Writer, quiet bool) error {
	if quiet {
		return nil
	}
	how := []string{v.Mode}
	for _, x := range []struct {
		is   bool
		name string
	}{{v.ZeroCopy, "zero-copy"}, {v.Sequential, "sequential"}, {v.Durable, "durable"}} {
		if x.is {
			how = append(how, x.name)
		}
	}
	title := v.Row
	if title != v.Work {
		title += ": " + v.Work
	}
	daemon := ""
	if v.DaemonUS > 0 {
		daemon = fmt.Sprintf(" + %.1f µs in the daemon", v.DaemonUS)
	}
	ended := ""
	if v.Ended != "" {
		ended = ": " + v.Ended
	}
	_, err := fmt.Fprintf(w, "%s, %s, %d in flight, %s\n  %.0f op/s, %s/s, %d in %.1f s%s\n"+
		"  latency p50 %s, p99 %s, p99.9 %s; processor time %.1f µs%s\n",
		title, formatSize(v.SizeBytes), v.Depth, strings.Join(how, ", "),
		v.OperationsPerSecond, formatSize(int64(v.BytesPerSecond)), v.Operations, v.Seconds, ended,
		formatUS(v.P50US), formatUS(v.P99US), formatUS(v.P999US), v.ClientUS, daemon)
	return err
}

// formatUS writes a time given in microseconds.
func formatUS(us float64) string {
	return (time.Duration(us*1e3) * time.Nanosecond).Round(100 * time.Nanosecond).String()
}

// benchClock measures a run.
type benchClock struct {
	at           time.Time
	daemon       int // its process, or 0
	mine, theirs time.Duration
}

// start starts the clock.
func (b *bench) start(ctx context.Context) benchClock {
	c := benchClock{mine: ownTime()}
	if v, err := b.d.Version(ctx); err == nil {
		c.daemon = int(v.PID)
		c.theirs = timeOf(c.daemon)
	}
	c.at = time.Now()
	return c
}

// stop returns the times since the start, of all operations together.
func (c *benchClock) stop() benchView {
	v := benchView{Seconds: time.Since(c.at).Seconds(), ClientUS: float64(ownTime()-c.mine) / 1e3}
	if c.daemon != 0 {
		v.DaemonUS = float64(timeOf(c.daemon)-c.theirs) / 1e3
	}
	return v
}

// ownTime returns the processor time of this process.
func ownTime() time.Duration { return timeOf(os.Getpid()) }

// timeOf returns the processor time that a process has used; 0 if it cannot be
// known.
func timeOf(pid int) time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|scheduled), uintptr(unsafe.Pointer(&t)), 0)
	if errno != 0 {
		return 0
	}
	return time.Duration(t.Nano())
}

// latencies counts times in buckets that are a sixteenth wide. Not safe for
// concurrent use; the zero value is empty.
type latencies struct {
	count   uint64
	buckets [64 * latencyParts]uint64
}

// latencyParts is into how many buckets each power of two is divided.
const latencyParts = 16

func (l *latencies) add(d time.Duration) {
	l.count++
	l.buckets[bucketOf(uint64(max(d, 1)))]++
}

// bucketOf returns the bucket of a number of nanoseconds.
func bucketOf(ns uint64) int {
	e := bits.Len64(ns) - 1
	if e < 4 {
		return int(ns)
	}
	return (e-3)*latencyParts + int(ns>>(e-4)&(latencyParts-1))
}

// bucketEnd returns the upper end of a bucket in nanoseconds.
func bucketEnd(i int) float64 {
	if i < latencyParts {
		return float64(i)
	}
	e := i/latencyParts + 3
	return float64(uint64(latencyParts+i%latencyParts+1)<<(e-4)) - 1
}

func (l *latencies) merge(x *latencies) {
	l.count += x.count
	for i, n := range x.buckets {
		l.buckets[i] += n
	}
}

// percentile returns the time in microseconds that a part of all kept.
func (l *latencies) percentile(part float64) float64 {
	var sum uint64
	for i, n := range l.buckets {
		if sum += n; n > 0 && float64(sum) >= part*float64(l.count) {
			return bucketEnd(i) / 1e3
		}
	}
	return 0
}
