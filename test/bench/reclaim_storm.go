package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// stormHandles is how many handles each client of a storm has on committed
// mblocks, beside one on an mblock that it has written to.
const stormHandles = 100

// clientStormWork kills o.plan.Workers clients at once.
func clientStormWork(ctx context.Context, o *options) (*measure.Result, error) {
	u, err := newUndertaker(ctx, o)
	if err != nil {
		return nil, err
	}
	before, err := countDescriptors(o.plan.Daemon)
	if err != nil {
		return nil, err
	}
	crowd, err := u.gather(o.plan.Workers)
	defer func() {
		for _, c := range crowd {
			_ = c.Process.Kill() //nolint:errcheck // it may be dead
			_ = c.Wait()         //nolint:errcheck // "signal: killed" is what is wanted
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	clock := measure.StartWith(o.plan.Daemon)
	began := monotonic()
	if err := unix.Kill(-crowd[0].Process.Pid, unix.SIGKILL); err != nil {
		return nil, fmt.Errorf("kill: %w", err)
	}
	var l measure.Latencies
	told := map[int32]bool{}
	for range crowd {
		n, err := u.hear()
		if err != nil {
			return nil, err
		}
		if told[n.PID] {
			return nil, fmt.Errorf("process %d's end was told twice", n.PID)
		}
		told[n.PID] = true
		l.Add(time.Duration(n.at - began))
	}
	r := clock.Stop()
	r.Latencies(l)
	r.Extra = map[string]float64{}
	if err := u.settled(ctx); err != nil {
		return nil, err
	}
	for end := time.Now().Add(reclaimPatience); ; time.Sleep(10 * time.Millisecond) {
		now, err := countDescriptors(o.plan.Daemon)
		if err != nil {
			return nil, err
		}
		if now <= before {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the daemon has %d descriptors; before the storm it had %d", now, before)
		}
	}
	return r, u.close(ctx, r)
}

// gather starts so many clients, all in one process group, and waits until they
// hold what they are to hold.
func (u *undertaker) gather(n int) ([]*exec.Cmd, error) {
	ready, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer says.Close()
	// They live by it.
	stdin, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	u.keep = ours
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var crowd []*exec.Cmd
	for range n {
		c := exec.Command(self, "work", "client-victim", "-socket", u.o.socket, "-objects", strconv.Itoa(stormHandles))
		c.Env = append(os.Environ(), "GOMAXPROCS=1")
		c.Stdin, c.Stderr, c.ExtraFiles = stdin, os.Stderr, []*os.File{says}
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if len(crowd) > 0 {
			c.SysProcAttr.Pgid = crowd[0].Process.Pid
		}
		if err := c.Start(); err != nil {
			return crowd, err
		}
		crowd = append(crowd, c)
	}
	return crowd, awaitReady(ready, says, n)
}

// countDescriptors returns how many descriptors a process has.
func countDescriptors(pid int) (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, errors.Join(errors.New("look at the daemon's descriptors"), err)
	}
	return len(list), nil
}
