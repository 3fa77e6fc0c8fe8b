package kill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/omf"
)

const (
	sceneBytes = 16 << 20 // of a drive
	shortBytes = 12 << 20 // of one that has not grown yet
	pageBytes  = 4096
)

// scene is something that the daemon, or mpoolctl, is killed inside of.
type scene struct {
	name    string
	active  bool // the pool is, at the beginning
	prepare func(t *testing.T, f *stock) media
	steps   []step
	// mends says that what is killed is a repair: what it leaves may be damaged,
	// and is repaired.
	mends    bool
	worn     bool // the drives are damaged, and no repair is made
	compacts bool // the metadata, in the course of it
}

// step is what is atomic: a kill leaves what was before or what is after it.
type step struct {
	do   func(context.Context, *actor) error
	same bool // it changes nothing that can be seen
}

// actor plays a scene.
type actor struct {
	c     *client.Conn // to the daemon; nil without one
	p     api.Pool     // if it is active
	paths []string     // of the drives
	ctl   func(ctx context.Context, args ...string) *exec.Cmd
	f     *stock
	mdc   api.MDC
	made  []api.Object // not committed
}

// stock is what a pool has at the beginning.
type stock struct {
	mblocks        []layout.ObjectID
	log, container layout.ObjectID
}

// pattern is n bytes, others for each n.
func pattern(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b) // it never fails
	return b
}

// blank are drives with nothing on them.
func blank() media {
	return media{
		sim.NewDisk(sceneBytes, sim.DiskOptions{PhysicalSector: 4096, Discard: true}),
		sim.NewDisk(sceneBytes, sim.DiskOptions{PhysicalSector: 512, Discard: true}),
	}
}

// stocked makes a pool of two drives with something of everything.
func stocked(t *testing.T, f *stock) media { return stockedOn(t, f, sceneBytes) }

// stockedOn makes it on the beginning of the drives. It is made for the sectors of
// a file in a file system.
func stockedOn(t *testing.T, f *stock, size int64) media {
	t.Helper()
	ctx := context.Background()
	m, all := media{}, blank()
	for range all {
		m = append(m, sim.NewDisk(size, sim.DiskOptions{LogicalSector: 4096, PhysicalSector: 4096}))
	}
	_, err := mpool.Create(ctx, "kill", m.names()[:1], api.CreateOptions{Staging: m.names()[1:]}, m.options())
	if err == nil {
		err = m.use("kill", func(p *mpool.Pool) error { return f.fill(ctx, p) })
	}
	b := make([]byte, pageBytes)
	for i := range m {
		for off := int64(0); off < size && err == nil; off += pageBytes {
			if _, err = m[i].ReadAt(b, off); err == nil && !bytes.Equal(b, make([]byte, pageBytes)) {
				_, err = all[i].WriteAt(b, off)
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (f *stock) fill(ctx context.Context, p *mpool.Pool) error {
	for i, n := range []int{0, 5000, 70_000, 300_000, 100, 200_000} {
		b, err := p.PutMblock(ctx, api.AllocOptions{Capacity: int64(n), Class: api.Class(i / 4)}, pattern(n))
		if err != nil {
			return err
		}
		f.mblocks = append(f.mblocks, b.ID())
		if err := b.Put(); err != nil {
			return err
		}
	}
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 100_000})
	if err != nil {
		return err
	}
	f.log = l.ID()
	if err := l.Commit(ctx); err != nil {
		return err
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		return err
	}
	for _, n := range []int{0, 100, 5000, 9000} {
		if _, err := a.Append(ctx, pattern(n), true); err != nil {
			return err
		}
	}
	if err := errors.Join(a.Close(ctx), l.Put()); err != nil {
		return err
	}
	if f.container, err = p.CreateMDC(ctx, api.AllocOptions{Capacity: 60_000}); err != nil {
		return err
	}
	c, err := p.OpenMDC(ctx, f.container)
	if err != nil {
		return err
	}
	for _, n := range []int{2000, 4000, 3000} {
		if err := c.Append(ctx, pattern(n), true); err != nil {
			return err
		}
	}
	return errors.Join(c.Close(ctx), p.SetRoots(ctx, []api.Root{{Name: "first", ID: f.log}}))
}

// grown is a pool on drives that have grown since.
func grown(t *testing.T, f *stock) media { return stockedOn(t, f, shortBytes) }

// damaged is a pool that has lost what there is twice: superblock copies of both
// drives, and one of the two copies of every log's last page.
func damaged(t *testing.T, f *stock) media {
	t.Helper()
	m := stocked(t, f)
	a, b := make([]byte, pageBytes), make([]byte, pageBytes)
	pairs := 0
	for _, d := range m {
		for off := int64(0); off < sceneBytes-pageBytes; off += pageBytes {
			_, err := d.ReadAt(a, off)
			if _, berr := d.ReadAt(b, off+pageBytes); err != nil || berr != nil {
				t.Fatal(err, berr)
			}
			if mlog.Magic == uint32(a[0])|uint32(a[1])<<8|uint32(a[2])<<16|uint32(a[3])<<24 && bytes.Equal(a, b) {
				d.FlipBit(off+90, 1)
				pairs++
			}
		}
	}
	if pairs < 5 {
		t.Fatalf("%d pairs of tails", pairs)
	}
	m[0].FlipBit(0, 1)
	m[0].FlipBit(sceneBytes-pageBytes+100, 1)
	m[1].FlipBit(omf.SecondCopyOffset+100, 1)
	m[1].FlipBit(100, 1)
	return m
}

// scenes are what the daemon is killed inside of.
func scenes() []scene {
	one := func(do func(context.Context, *actor) error) []step { return []step{{do: do}} }
	return []scene{
		{name: "create", prepare: func(*testing.T, *stock) media { return blank() }, steps: one(create)},
		{name: "activate", prepare: damaged, worn: true, steps: []step{{same: true, do: func(ctx context.Context, a *actor) error {
			_, err := a.c.ActivatePool(ctx, "kill", a.paths, api.ActivateOptions{})
			return err
		}}}},
		{name: "resize", prepare: grown, steps: one(func(ctx context.Context, a *actor) error {
			_, err := a.c.ActivatePool(ctx, "kill", a.paths, api.ActivateOptions{Resize: true})
			return err
		})},
		{name: "rename", active: true, prepare: stocked, steps: one(func(ctx context.Context, a *actor) error {
			return a.c.RenamePool(ctx, "kill", "other")
		})},
		{name: "set", active: true, prepare: stocked, steps: one(func(ctx context.Context, a *actor) error {
			label := "a label"
			return a.c.SetPool(ctx, "kill", api.PoolSettings{Label: &label})
		})},
		{name: "deactivate", active: true, prepare: stocked, steps: []step{put(9000), {same: true, do: leave}, {same: true, do: func(ctx context.Context, a *actor) error {
			return a.c.DeactivatePool(ctx, "kill")
		}}}},
		{name: "destroy", active: true, prepare: stocked, steps: []step{{same: true, do: leave}, {do: func(ctx context.Context, a *actor) error {
			return a.c.DestroyPool(ctx, "kill")
		}}}},
		{name: "commit of many", active: true, prepare: stocked, steps: []step{{do: allocate, same: true}, {do: commitMany}}},
		{name: "delete and discard", active: true, prepare: stocked, steps: discard()},
		{name: "compaction of the metadata", active: true, prepare: churned, steps: churn(), compacts: true},
		{name: "compaction of a container", active: true, prepare: stocked, steps: containerSteps()},
		{name: "erase", active: true, prepare: stocked, steps: one(func(ctx context.Context, a *actor) error {
			l, err := a.p.Mlog(ctx, a.f.log)
			if err != nil {
				return err
			}
			return l.Erase(ctx, 0)
		})},
		{name: "names and an extent used again", active: true, prepare: stocked, steps: againSteps()},
		{name: "check --repair", prepare: damaged, mends: true, steps: []step{{same: true, do: repair}}},
	}
}

func create(ctx context.Context, a *actor) error {
	_, err := a.c.CreatePool(ctx, "kill", a.paths[:1], api.CreateOptions{Staging: a.paths[1:]})
	return err
}

// leave closes the pool, which is in use otherwise.
func leave(_ context.Context, a *actor) error { return a.p.Close() }

func repair(ctx context.Context, a *actor) error {
	out, err := a.ctl(ctx, append([]string{"pool", "check", "--repair", "--yes", "--data"}, a.paths...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func allocate(ctx context.Context, a *actor) error {
	for i, n := range []int{3000, 150_000, 60_000} {
		b, err := a.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(n), Class: api.Class(i % 2)})
		if err != nil {
			return err
		}
		if _, err := b.Write(ctx, pattern(n)); err != nil {
			return err
		}
		a.made = append(a.made, b)
	}
	l, err := a.p.AllocMlog(ctx, api.AllocOptions{Capacity: 50_000})
	a.made = append(a.made, l)
	return err
}

func commitMany(ctx context.Context, a *actor) error {
	return a.p.CommitMany(ctx, a.made, []api.Root{{Name: "first", ID: a.made[0].ID()}, {Name: "new", ID: a.made[3].ID()}})
}

// discard deletes what there is and waits until it is discarded.
func discard() (list []step) {
	for i := range 5 {
		list = append(list, step{do: func(ctx context.Context, a *actor) error {
			b, err := a.p.Mblock(ctx, a.f.mblocks[i+1])
			if err != nil {
				return err
			}
			return b.Delete(ctx)
		}})
	}
	return append(list, step{same: true, do: func(ctx context.Context, a *actor) error {
		for {
			info, err := a.p.Info(ctx)
			if err != nil || info.Space.Draining == 0 {
				return err
			}
			time.Sleep(time.Millisecond) // polls; nothing depends on its length
		}
	}})
}

// put makes an mblock.
func put(n int) step {
	return step{do: func(ctx context.Context, a *actor) error {
		b, err := a.p.PutMblock(ctx, api.AllocOptions{Capacity: int64(n)}, pattern(n))
		if err != nil {
			return err
		}
		return b.Put()
	}}
}

func containerSteps() []step {
	add := func(n int) step {
		return step{do: func(ctx context.Context, a *actor) error { return a.mdc.Append(ctx, pattern(n), true) }}
	}
	copied := func(n int) step {
		return step{same: true, do: func(ctx context.Context, a *actor) error { return a.mdc.CompactAppend(ctx, pattern(n)) }}
	}
	return []step{
		{same: true, do: func(ctx context.Context, a *actor) (err error) {
			a.mdc, err = a.p.OpenMDC(ctx, a.f.container)
			return err
		}},
		add(1500),
		{same: true, do: func(ctx context.Context, a *actor) error { return a.mdc.CompactStart(ctx) }},
		copied(5000), add(700), copied(9000), add(6000),
		{do: func(ctx context.Context, a *actor) error { return a.mdc.CompactEnd(ctx) }},
		add(900),
		{same: true, do: func(ctx context.Context, a *actor) error { return a.mdc.Close(ctx) }},
	}
}

// againSteps set and unset names, and give an id and an extent again.
func againSteps() []step {
	roots := func(numbers ...api.Root) step {
		return step{do: func(ctx context.Context, a *actor) error {
			list := slices.Clone(numbers)
			for i := range list {
				if list[i].ID != 0 {
					list[i].ID = a.f.mblocks[list[i].ID]
				}
			}
			return a.p.SetRoots(ctx, list)
		}}
	}
	long := strings.Repeat("r", api.MaxRootName)
	return []step{
		roots(api.Root{Name: long, ID: 1}, api.Root{Name: "b", ID: 2}),
		{same: true, do: func(ctx context.Context, a *actor) error {
			_, err := a.p.AddOwner(ctx, strings.Repeat("o", api.MaxOwnerName), 0)
			return err
		}},
		{do: func(ctx context.Context, a *actor) error {
			m, err := a.p.Mblock(ctx, a.f.mblocks[3])
			if err != nil {
				return err
			}
			return m.Delete(ctx)
		}},
		{do: func(ctx context.Context, a *actor) error {
			m, err := a.p.ReallocMblock(ctx, a.f.mblocks[3], api.AllocOptions{Capacity: 90_000})
			if err == nil {
				_, err = m.Write(ctx, pattern(90_000))
			}
			if err == nil {
				err = m.Commit(ctx)
			}
			return err
		}},
		roots(api.Root{Name: long}),
		{do: func(ctx context.Context, a *actor) error { return a.p.DeleteMDC(ctx, a.f.container) }},
	}
}

// diff says how two states differ.
func diff(got, want string) string {
	var out strings.Builder
	has := func(all, line string) bool { return strings.Contains("\n"+all+"\n", "\n"+line+"\n") }
	for line := range strings.SplitSeq(got, "\n") {
		if !has(want, line) {
			fmt.Fprintf(&out, "  there is  %s\n", line)
		}
	}
	for line := range strings.SplitSeq(want, "\n") {
		if !has(got, line) {
			fmt.Fprintf(&out, "  there was %s\n", line)
		}
	}
	return out.String()
}
