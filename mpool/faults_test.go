package mpool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// proves S9 S27 S41: when the metadata is full, of objects and roots, creates are
// refused, and so are more roots; all roots can be unset and all objects deleted, also
// when no compaction is admitted, and then there is room again.
func TestFullMetadata(t *testing.T) {
	for seed := range seeds(10) {
		for _, most := range []int{0, 20, 1 << 20} {
			r := newRig(t, seed, 64<<20)
			r.meta = 64 << 10
			r.run(func() { r.fillMetadata(most) })
		}
	}
}

// fillMetadata fills it with roots, so many at most, and objects, and empties it.
func (r *rig) fillMetadata(most int) {
	r.t.Helper()
	rng := r.s.Rand()
	r.create(api.CreateOptions{})
	p := r.activate()
	ids := []layout.ObjectID{r.put(p, 0)}
	var roots []string
	for full := 0; full < 2; {
		name := fmt.Sprintf("%d%s", len(roots), strings.Repeat("n", rng.IntN(api.MaxRootName-4)))
		if len(roots) >= min(most, api.MaxRoots) || rng.IntN(2) == 0 {
			b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1})
			r.ok(err)
			if err = b.Commit(bg); err == nil {
				ids = append(ids, b.ID())
				r.ok(b.Put())
				continue
			}
			r.want(api.ENOSPC, err)
			r.ok(b.Abort(bg))
			full++
			continue
		}
		if err := p.SetRoots(bg, []api.Root{{Name: name, ID: ids[0]}}); err != nil {
			r.want(api.ENOSPC, err)
			full++
			continue
		}
		roots = append(roots, name)
	}
	if len(ids)+len(roots) < 50 {
		r.t.Errorf("full with %d objects and %d roots", len(ids), len(roots))
	}
	if rng.IntN(2) == 0 {
		r.ok(p.Close())
		p = r.activate()
	}
	p.opt.Admit = func(context.Context, Priority) (func(), error) { return nil, errors.New("not now") }
	for _, name := range roots {
		r.ok(p.SetRoots(bg, []api.Root{{Name: name}}))
	}
	for _, id := range ids {
		r.ok(r.remove(p, id))
	}
	r.kept(p, 0)
	p.opt.Admit = Options{}.withDefaults().Admit
	for range 30 {
		r.put(p, 1)
	}
	r.ok(p.Close())
}

// kept checks what of the metadata is kept for deletes.
func (r *rig) kept(p *Pool, want int64) {
	r.t.Helper()
	p.meta.mu.Lock()
	defer p.meta.mu.Unlock()
	if p.meta.ends != want {
		r.t.Errorf("%d bytes are kept for deletes and unset roots, want %d", p.meta.ends, want)
	}
}

// proves S27: at least 256 flushes between two compactions by the formula.
func TestFlushesBetweenCompactions(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		last := uint64(0)
		for range 3000 {
			r.ok(r.remove(p, r.put(p, 1)))
			p.meta.mu.Lock()
			now := p.meta.compactions
			p.meta.mu.Unlock()
			last++
			if now > 0 {
				break
			}
		}
		if last*2 < 256 {
			t.Errorf("a compaction after %d flushes", 2*last)
		}
		r.ok(p.Close())
	})
}

// Compaction goes on beside commits: in the simulated time of the drive no
// commit takes more than ten times the median, or much more than the longest
// without a compaction. There are more compactions than the two longest, which
// do not count: the drive stalls now and then, and sometimes twice in a commit.
func TestCompactionStallsNoCommit(t *testing.T) {
	_, _, quiet := compactionTimes(t, 8<<20)
	n, median, longest := compactionTimes(t, 128<<10)
	if n < 3 {
		t.Errorf("only %d compactions", n)
	}
	if longest > max(10*median, quiet+quiet/4) {
		t.Errorf("put and delete take %v at the median, %v at the longest; without compactions %v", median, longest, quiet)
	}
	t.Logf("%d compactions; median %v, longest %v, without compactions %v", n, median, longest, quiet)
}

// compactionTimes puts and deletes beside live objects and returns how many
// compactions there were and how long a pair took.
func compactionTimes(t *testing.T, metaBytes int64) (compactions uint64, median, longest time.Duration) {
	t.Helper()
	r := newRig(t, 3, 64<<20)
	r.meta = metaBytes
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for range 200 {
			r.put(p, 1)
		}
		var times []time.Duration
		for range 2000 {
			start := r.s.Now()
			r.ok(r.remove(p, r.put(p, 1)))
			times = append(times, r.s.Now().Sub(start))
		}
		p.meta.mu.Lock()
		compactions = p.meta.compactions
		p.meta.mu.Unlock()
		median, longest = stats(times)
		r.ok(p.Close())
	})
	return compactions, median, longest
}

func stats(times []time.Duration) (median, longest time.Duration) {
	sorted := append([]time.Duration(nil), times...)
	for i := range sorted {
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[len(sorted)/2], sorted[len(sorted)-3]
}

// proves S40: after a failed metadata write or flush the outcome is unknown,
// the pool is read-only, nothing is acknowledged, reads go on; the next
// activation finds the change whole or not at all.
func TestFailedMetadataWrite(t *testing.T) {
	for _, code := range []string{"write", "flush"} {
		for seed := range uint64(20) {
			r := newRig(t, seed, 16<<20)
			r.run(func() {
				r.create(api.CreateOptions{})
				p := r.activate()
				keep := r.put(p, 5000)
				b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 10})
				r.ok(err)
				_, err = b.Write(bg, []byte("0123456789"))
				r.ok(err)
				r.disk.Inject(failMetadata(p, code))
				err = b.Commit(bg)
				if code == "flush" && api.CodeOf(err) == api.EIO {
					r.disk.Heal()
					r.ok(b.Abort(bg)) // the data's own flush failed: only abort is left
					r.ok(p.Abandon(bg))
					return
				}
				r.want(api.EUNKNOWN, err)
				r.disk.Heal()
				_, err = p.AllocMblock(bg, api.AllocOptions{Capacity: 10})
				r.want(api.EROFS, err)
				r.want(api.EROFS, p.SetRoots(bg, []api.Root{{Name: "x", ID: keep}}))
				r.want(api.EROFS, r.remove(p, keep))
				k, err := p.Mblock(bg, keep)
				r.ok(err)
				if n, err := k.ReadAt(make([]byte, 5000), 0); n != 5000 || err != nil {
					t.Errorf("read from a read-only pool: %d, %v", n, err)
				}
				info, err := p.Info(bg)
				r.ok(err)
				if info.State != "read-only" {
					t.Errorf("state %s", info.State)
				}
				r.ok(p.Abandon(bg))
				p = r.activate()
				if _, err := p.Mblock(bg, b.ID()); err != nil && !errors.Is(err, api.ENOENT) {
					t.Error(err)
				}
				r.ok(r.remove(p, keep))
				r.ok(p.Abandon(bg))
			})
		}
	}
}

// proves S40: a failed write or flush of an mblock poisons it alone.
func TestFailedDataWrite(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1 << 20})
		r.ok(err)
		info, err := b.Info(bg)
		r.ok(err)
		r.disk.Inject(failData(p))
		_, err = b.Write(bg, make([]byte, 4096))
		r.want(api.EIO, err)
		r.disk.Heal()
		r.want(api.EIO, b.Commit(bg))
		r.put(p, 5000)
		r.ok(b.Abort(bg))
		after, err := p.Info(bg)
		r.ok(err)
		if after.Space.Uncommitted != 0 || info.Used == 0 {
			t.Errorf("after the abort: %+v", after.Space)
		}
		r.ok(p.Close())
	})
}

// proves S42 S46: while the drive stalls, deadlines hold; when it goes on, so
// does the pool.
func TestStalledDrive(t *testing.T) {
	for seed := range uint64(10) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			id := r.put(p, 5000)
			b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 4096})
			r.ok(err)
			r.disk.Inject(stall(10 * time.Second))
			start := r.s.Now()
			ctx, cancel := r.s.WithTimeout(bg, time.Second)
			defer cancel()
			_, err = b.Write(ctx, make([]byte, 4096))
			r.want(api.ETIMEDOUT, err)
			k, err := p.Mblock(bg, id)
			r.ok(err)
			_, err = k.ReadAtContext(ctx, make([]byte, 100), 0)
			r.want(api.ETIMEDOUT, err)
			err = p.SetRoots(ctx, []api.Root{{Name: "x", ID: id}})
			if c := api.CodeOf(err); c != api.EUNKNOWN && c != api.ETIMEDOUT {
				t.Errorf("SetRoots: %v", err)
			}
			if d := r.s.Now().Sub(start); d > 1100*time.Millisecond {
				t.Errorf("deadlines of 1 s ended after %v", d)
			}
			r.disk.Heal()
			r.ok(p.SetRoots(bg, []api.Root{{Name: "y", ID: id}}))
			r.ok(b.Abort(bg))
			r.ok(k.Put())
			r.ok(p.Close())
		})
	}
}

// proves S8 S15: an extent is not given anew while a read of its former owner is
// under way, whatever the reader waits for.
func TestDeleteWaitsForReads(t *testing.T) {
	for seed := range uint64(50) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			id := r.put(p, 4096)
			b, err := p.Mblock(bg, id)
			r.ok(err)
			r.disk.Inject(stallReads(time.Second))
			var done sched.Completion
			done.Init(r.s)
			r.s.Go("reader", func() {
				defer done.Done()
				got := make([]byte, 4096)
				n, err := b.ReadAt(got, 0)
				if err != nil && api.CodeOf(err) != api.ENOENT && api.CodeOf(err) != api.EBADF {
					t.Errorf("read: %d, %v", n, err)
				}
				if err == nil && firstNonZero(got) >= 0 {
					t.Error("the read returned another object's bytes")
				}
			})
			r.ok(r.s.Sleep(bg, time.Duration(r.s.Rand().IntN(100))*time.Millisecond))
			r.ok(b.Delete(bg))
			for range 3 {
				x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 4096})
				r.ok(err)
				_, err = x.Write(bg, fill(4096))
				r.ok(err)
				r.ok(x.Commit(bg))
				r.ok(x.Put())
			}
			r.ok(done.Wait(bg))
			r.ok(p.Close())
		})
	}
}

func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xee
	}
	return b
}

// metaRange is where the pool's metadata logs lie, in bytes.
func metaRange(p *Pool) (from, to int64) {
	logs := p.sb.Load().Logs
	return int64(logs[0].Start) * layout.BlockSize, int64(logs[1].Start+uint64(logs[1].Blocks)) * layout.BlockSize
}

// failMetadata makes the next writes of the metadata fail, or the next flushes.
func failMetadata(p *Pool, what string) devsim.Fault {
	if what == "flush" {
		return devsim.Fault{Code: bdev.OpFlush, Err: syscall.EIO}
	}
	from, to := metaRange(p)
	return devsim.Fault{Code: bdev.OpWrite, From: from, To: to, Err: syscall.EIO}
}

// failData makes writes behind the metadata fail.
func failData(p *Pool) devsim.Fault {
	_, to := metaRange(p)
	return devsim.Fault{Code: bdev.OpWrite, From: to, To: 1 << 40, Err: syscall.EIO}
}

func stall(d time.Duration) devsim.Fault { return devsim.Fault{Delay: d} }

func stallReads(d time.Duration) devsim.Fault { return devsim.Fault{Code: bdev.OpRead, Delay: d} }
