package mpool

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

var bg = context.Background()

// rig is a simulated world with one disk.
type rig struct {
	t    *testing.T
	s    *sched.Sched
	disk *devsim.Disk
	open devsim.OpenOptions
	meta int64
}

type dice struct{ rng *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return len(p), nil
}

func newRig(t *testing.T, seed uint64, size int64) *rig {
	t.Helper()
	return &rig{t: t, s: sched.New(seed), disk: devsim.NewDisk(size, devsim.DiskOptions{})}
}

func (r *rig) options() Options {
	return Options{
		Sched: r.s, MetadataBytes: r.meta, Rand: dice{r.s.Rand()},
		Open: func(_ context.Context, _ string, readOnly bool) (*bdev.Drive, error) {
			o := r.open
			o.ReadOnly = readOnly
			return devsim.Open(r.s, r.disk, o)
		},
	}
}

// run runs f as a task; its panics and deadlocks fail the test.
func (r *rig) run(f func()) {
	r.t.Helper()
	if err := r.s.Run(f); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) create(o api.CreateOptions) api.CreateResult {
	r.t.Helper()
	res, err := Create(bg, "p", []string{"sim"}, o, r.options())
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func (r *rig) activate() *Pool {
	r.t.Helper()
	p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(code api.Code, err error) {
	r.t.Helper()
	if api.CodeOf(err) != code {
		r.t.Fatalf("error %v; want %v", err, code)
	}
}

// put commits an mblock of n bytes and returns its id.
func (r *rig) put(p *Pool, n int) layout.ObjectID {
	r.t.Helper()
	b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(n)})
	r.ok(err)
	if n > 0 {
		_, err = b.Write(bg, make([]byte, n))
		r.ok(err)
	}
	r.ok(b.Commit(bg))
	r.ok(b.Put())
	return b.ID()
}

// remove deletes an object.
func (r *rig) remove(p *Pool, id layout.ObjectID) error {
	r.t.Helper()
	b, err := p.Mblock(bg, id)
	r.ok(err)
	err = b.Delete(bg)
	if err != nil {
		r.ok(b.Put())
	}
	return err
}

// seeds is how many seeds a test in the simulator runs through: n, or fewer under
// the race detector. One task runs at a time there: nothing races.
func seeds(n uint64) uint64 {
	if raced {
		return max(1, n/5)
	}
	return n
}
