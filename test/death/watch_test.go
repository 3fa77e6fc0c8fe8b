package death

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

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
	m *ebpf.Map // of the processes that are watched in the kernel, or nil

	idle   held // before the first client
	most   int  // clients that died together so far
	trend  []held
	events events
}

// held is what the daemon holds when only those are there who live on.
type held struct {
	deaths     int
	most       int // of watch, then
	sessions   uint32
	handles    uint32
	ofPool     uint32 // handles
	space      api.Space
	usage      daemon.Usage
	goroutines map[string]int
	heap       int64 // bytes
	watched    int   // processes, in the kernel
}

func newWatch(t *testing.T, d *daemon.Daemon, c *client.Conn, p api.Pool) *watch {
	t.Helper()
	w := &watch{t: t, d: d, c: c, p: p, m: watchedMap(t, d), events: newEvents()}
	for e, err := range c.Events(context.Background(), client.EventOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		w.events.after = e.Seq
	}
	w.idle = w.look()
	// A goroutine of the last request may be on its way out.
	for same := 0; same < 3; same++ {
		now := d.Goroutines()
		if !maps.Equal(now, w.idle.goroutines) {
			w.idle.goroutines, same = now, 0
		}
	}
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
		watched: entries(w.t, w.m),
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
	daemon.Eventually(w.t, "sessions, handles, uncommitted zones and watches of the dead are given back", func() bool {
		now = w.look()
		return now.sessions == w.idle.sessions && now.handles == w.idle.handles && now.ofPool == w.idle.ofPool &&
			now.watched == w.idle.watched &&
			now.space.Uncommitted == w.idle.space.Uncommitted && now.space.Draining == 0
	})
	if s := now.space; s.Free+s.Live+s.Uncommitted+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		w.t.Errorf("space does not add up: %+v", s)
	}
}

// compare says what there is more of than there was before the first client:
// nothing may be.
func (w *watch) compare(deaths int) {
	w.t.Helper()
	w.settle()
	now := w.look()
	now.deaths, now.most = deaths, w.most
	if now.space != w.idle.space {
		w.t.Errorf("after %d deaths: space %+v; it was %+v", deaths, now.space, w.idle.space)
	}
	defer func() {
		if w.t.Failed() {
			w.t.Logf("after %d deaths: descriptors %v, there were %v; goroutines %v, there were %v", deaths,
				now.usage.Descriptors, w.idle.usage.Descriptors, now.goroutines, w.idle.goroutines)
		}
	}()
	daemon.Eventually(w.t, "the goroutines of the dead's sessions have ended", func() bool {
		now.goroutines = w.d.Goroutines()
		return maps.Equal(now.goroutines, w.idle.goroutines)
	})
	now.heap = w.d.Heap()
	if *heaps != "" {
		name := filepath.Join(*heaps, fmt.Sprintf("heap-%06d", deaths))
		if err := os.WriteFile(name, []byte(w.d.Profile("heap")), 0o600); err != nil {
			w.t.Error(err)
		}
	}
	daemon.Eventually(w.t, "the descriptors of the dead's sessions are closed", func() bool {
		now.usage = w.d.Usage()
		return maps.Equal(now.usage.Descriptors, w.idle.usage.Descriptors)
	})
	w.trend = append(w.trend, now)
}

// Bounds of what has no exact value.
const (
	// mostThreads is how many threads of its own the daemon may have, however many
	// clients end: those that were ever in a system call at the same time stay. On two
	// processors 16 requests that move data run at one time, 64 that wait for a flush,
	// 4 that map; the others are of the runtime, of loops, and of those who were in a
	// short call when their processor was taken from them.
	mostThreads = 120
	// mostWorkers is how many more the kernel may have for operations that would keep
	// the thread that asks for them: one for each under way, see bdev.OpenOptions, and
	// one for each thread that ever asked.
	mostWorkers = 256 + mostThreads
	// mostHeap is by how much the reachable memory may differ, in bytes. What grows, by
	// profiles (-death.heaps), has a bound, but is there only when it was first needed: the
	// table of objects, by half a MiB whenever more are there than ever before, and it
	// uses places again; the last 4,096 events, 1 MiB; pages and images of logs that are
	// kept to be used again, half a MiB each.
	mostHeap = 4 << 20
)

// finish judges the trend of what has no exact value. Only the second half of
// the run counts, from when as many have died together as ever do: before, tables
// and pools grow.
func (w *watch) finish() {
	w.t.Helper()
	for i, h := range w.trend {
		if i%max(len(w.trend)/16, 1) == 0 || i == len(w.trend)-1 {
			w.t.Logf("after %6d deaths: heap %6d KiB, resident %6d KiB, peak %6d KiB, %2d threads, the kernel's workers %d",
				h.deaths, h.heap>>10, h.usage.Resident>>10, h.usage.Peak>>10, h.usage.Threads, h.usage.Workers)
		}
	}
	last := w.trend[len(w.trend)-1]
	grown := slices.IndexFunc(w.trend, func(h held) bool { return h.most == last.most })
	half := w.trend[max(len(w.trend)/2, grown)]
	if more := last.heap - half.heap; more > mostHeap {
		w.t.Errorf("from death %d to death %d the heap grew by %d KiB", half.deaths, last.deaths, more>>10)
	}
	for _, h := range w.trend {
		if u := h.usage; u.Threads > mostThreads || u.Workers > mostWorkers {
			w.t.Errorf("after %d deaths %d threads, the kernel's workers %d", h.deaths, u.Threads, u.Workers)
		}
	}
	w.t.Logf("goroutines %v, descriptors %v, as before the first client", last.goroutines, last.usage.Descriptors)
}
