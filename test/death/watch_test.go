package death

import (
	"context"
	"maps"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

// watch compares what the daemon holds with what it held before.
type watch struct {
	t *testing.T
	d *daemon.Daemon
	c *client.Conn
	p api.Pool

	idle  held // before the first client
	base  held // after the warm-up
	trend []held
}

// held is what the daemon holds when only those are there who live on.
type held struct {
	deaths   int
	sessions uint32
	handles  uint32
	ofPool   uint32 // handles
	space    api.Space
	usage    daemon.Usage
}

func newWatch(t *testing.T, d *daemon.Daemon, c *client.Conn, p api.Pool) *watch {
	t.Helper()
	w := &watch{t: t, d: d, c: c, p: p}
	w.idle = w.look()
	return w
}

func (w *watch) look() held {
	w.t.Helper()
	ctx := context.Background()
	all, err := w.c.Stat(ctx, "")
	if err != nil {
		w.t.Fatal(err)
	}
	pool, err := w.c.Stat(ctx, poolName)
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := w.p.Info(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return held{
		sessions: all.Sessions, handles: all.Handles, ofPool: pool.Handles, space: info.Space, usage: w.d.Usage(),
	}
}

// settle waits until what the dead held is given back, but for what they
// committed. Those who live on are idle meanwhile.
func (w *watch) settle() {
	w.t.Helper()
	var now held
	defer func() {
		if w.t.Failed() {
			w.t.Logf("there are %+v; there were %+v\n%s", now, w.idle, w.d.Log())
		}
	}()
	daemon.Eventually(w.t, "sessions, handles and uncommitted zones of the dead are given back", func() bool {
		now = w.look()
		return now.sessions == w.idle.sessions && now.handles == w.idle.handles && now.ofPool == w.idle.ofPool &&
			now.space.Uncommitted == w.idle.space.Uncommitted && now.space.Draining == 0
	})
	if s := now.space; s.Free+s.Live+s.Uncommitted+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		w.t.Errorf("space does not add up: %+v", s)
	}
}

// begin takes the baseline.
func (w *watch) begin() {
	w.t.Helper()
	w.settle()
	w.base = w.look()
	w.t.Logf("baseline: resident %d KiB, %d threads, descriptors %v",
		w.base.usage.Resident>>10, w.base.usage.Threads, w.base.usage.Descriptors)
	w.compare(0)
}

// compare says what there is more of than there was before.
func (w *watch) compare(deaths int) {
	w.t.Helper()
	w.settle()
	now := w.look()
	now.deaths = deaths
	if now.space != w.idle.space {
		w.t.Errorf("after %d deaths: space %+v; it was %+v", deaths, now.space, w.idle.space)
	}
	daemon.Eventually(w.t, "the descriptors of the dead are closed", func() bool {
		now.usage = w.d.Usage()
		if !maps.Equal(now.usage.Descriptors, w.idle.usage.Descriptors) {
			return false
		}
		return true
	})
	w.trend = append(w.trend, now)
}

// mostThreads bounds the daemon's threads: those that were ever in a system
// call at the same time stay.
const mostThreads = 120

// finish judges the trend of what has no exact value.
func (w *watch) finish() {
	w.t.Helper()
	last := w.trend[len(w.trend)-1]
	w.t.Logf("at the end: resident %d KiB (baseline %d), %d threads, descriptors %v",
		last.usage.Resident>>10, w.base.usage.Resident>>10, last.usage.Threads, last.usage.Descriptors)
	if last.usage.Threads > mostThreads {
		w.t.Errorf("%d threads", last.usage.Threads)
	}
	for i, h := range w.trend {
		if i%max(len(w.trend)/12, 1) == 0 {
			w.t.Logf("after %6d deaths: resident %d KiB, peak %d KiB, %d threads",
				h.deaths, h.usage.Resident>>10, h.usage.Peak>>10, h.usage.Threads)
		}
	}
}
