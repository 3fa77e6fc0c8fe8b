package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Others' work on the machine. Only their time in user mode is looked at: kernel
// threads, which work for us too, have none.
const (
	quietEnough = 0.15 // cores that others may use
	quietSample = 300 * time.Millisecond
	clockTick   = 10 * time.Millisecond // of /proc/stat
)

// userTime returns the time that all processors have spent in user mode.
func userTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 3 {
		return 0
	}
	var ticks int64
	for _, s := range f[1:3] { // user, nice
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// ownUserTime returns how much of that was this process and its children that
// have ended.
func ownUserTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano())
		}
	}
	return sum
}

// others calls f and returns how many cores others used meanwhile.
func others(f func() error) (cores float64, err error) {
	at, all, own := time.Now(), userTime(), ownUserTime()
	err = f()
	used := userTime() - all - (ownUserTime() - own)
	return max(0, used.Seconds()/time.Since(at).Seconds()), err
}

// waitQuiet returns when others use little, or when the patience for this turn
// is over.
func (b *bench) waitQuiet(ctx context.Context) error {
	for end := time.Now().Add(b.patience); time.Now().Before(end); {
		cores, err := others(func() error {
			select {
			case <-time.After(quietSample):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err != nil || cores <= quietEnough {
			return err
		}
	}
	return nil
}

// disturbance describes how many cores others used during a row.
func disturbance(s []float64) string {
	if len(s) == 0 {
		return "none measured"
	}
	d := spreadOf(s)
	return fmt.Sprintf("%.2f [%.2f-%.2f] cores", d.Median, d.Min, d.Max)
}
