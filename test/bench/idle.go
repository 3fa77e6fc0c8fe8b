package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// idleClients is how many clients are connected and do nothing.
const idleClients = 100

// idle looks at a daemon with clients that do nothing.
func (b *bench) idle(ctx context.Context) error {
	over := time.Minute
	if b.quick {
		over = 5 * time.Second
	}
	if _, err := b.work(ctx, "read-fill", "-dev", b.fast, "-size", strconv.Itoa(mblockSize)); err != nil {
		return err
	}
	turns, patience := b.turns, b.patience
	b.turns, b.patience = 1, 0 // it is long enough, and others do not wake the daemon
	defer func() { b.turns, b.patience = turns, patience }()
	all, err := b.alternate(ctx, b.client("daemon", "client-idle", "-dev", b.fast, "-time", over.String(),
		"-flight", strconv.Itoa(idleClients)))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d idle clients, %v: ", idleClients, over)
	b.report(name+"daemon", metric{"% of a core", func(r *measure.Result) float64 {
		return r.DaemonUS / 1e4 / r.Seconds
	}}, all[0], nil, valueAtMost, 0.1, 0)
	b.report(name+"daemon", extra("wakeups", "wake-ups/s"), all[0], nil, valueAtMost, 2, 0)
	b.report(name+"all clients", extra("clientWakeups", "wake-ups/s"), all[0], nil, valueAtMost, 0, 0)
	return nil
}

// clientIdleWork opens o.plan.Workers connections, uses each once, through shared
// memory, and then does nothing for a time.
func clientIdleWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.activateThrough(ctx)
	if err != nil {
		return nil, err
	}
	idle := make([]*connection, o.plan.Workers)
	for i := range idle {
		if idle[i], err = o.connect(ctx); err != nil {
			return nil, err
		}
		if idle[i], err = idle[i].open(ctx); err != nil {
			return nil, err
		}
		if err := idle[i].use(ctx); err != nil {
			return nil, err
		}
	}
	time.Sleep(min(2*time.Second, o.plan.Time)) // what follows the use, such as a collection, is no idleness
	if err := o.measured(); err != nil {
		return nil, err
	}
	daemon, err := wakeups(o.plan.Daemon)
	if err != nil {
		return nil, err
	}
	own, err := wakeups(os.Getpid())
	if err != nil {
		return nil, err
	}
	clock := measure.StartWith(o.plan.Daemon)
	time.Sleep(o.plan.Time) // what is measured
	r := clock.Stop()
	r.Extra = map[string]float64{}
	for name, p := range map[string]struct {
		pid    int
		before float64
	}{"wakeups": {o.plan.Daemon, daemon}, "clientWakeups": {os.Getpid(), own}} {
		now, err := wakeups(p.pid)
		if err != nil {
			return nil, err
		}
		r.Extra[name] = (now - p.before) / r.Seconds
	}
	for _, x := range idle {
		err = errors.Join(err, x.pool.Close(), x.Close())
	}
	return r, errors.Join(err, c.finish(r))
}

// use reads once through shared memory.
func (c *connection) use(ctx context.Context) error {
	list, err := c.mblocks(ctx)
	if err != nil {
		return err
	}
	buf := noise(seqSize)
	for _, m := range list {
		if _, err := m.ReadAt(buf, 0); err != nil {
			return err
		}
		if err := m.Put(); err != nil {
			return err
		}
	}
	return nil
}

// wakeups returns how often the threads of a process have slept, and so have
// been woken, until now. Those of threads that have ended are lost.
func wakeups(pid int) (float64, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("look at the threads: %w", err)
	}
	sum := 0.0
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
				if err != nil {
					return 0, fmt.Errorf("%s: %w", line, err)
				}
				sum += n
			}
		}
	}
	return sum, nil
}
