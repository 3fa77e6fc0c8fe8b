package rot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
)

const (
	diskBytes = 9 << 20
	metaBytes = 64 << 10
	pageBytes = 4096
	poolName  = "rot"
)

// expected is what was acknowledged of an object.
type expected struct {
	data    []byte     // of an mblock
	records [][]byte   // of a log or a container, in order
	all     [][]byte   // every record that a container ever had
	maybe   bool       // the call that was to change it failed, for all that is known
	kind    objectKind // what it is
}

type objectKind uint8

const (
	anMblock objectKind = iota
	aLog
	aContainer
)

// kind is of which drives a pool is.
type kind string

const (
	oneDrive    kind = "one drive"
	withStaging kind = "a drive of either class"
	twoDrives   kind = "two drives of one class"
)

// image is a pool as a stop left it, and what was acknowledged.
type image struct {
	disks   sim.Rack
	kind    kind
	turn    int // which class is next
	unclean bool
	objects map[layout.ObjectID]*expected
	gone    map[layout.ObjectID]bool // deleted
	root    layout.ObjectID
	seed    uint64
	hits    uint64 // of the disk's faults
	trouble error  // why the scenario ended early: a lie of the drive was found at once
}

func options(d sim.Rack) mpool.Options {
	return mpool.Options{
		MetadataBytes: metaBytes, Rand: dice{rand.New(rand.NewPCG(1, 2))},
		Open: d.Opener(nil, sim.OpenOptions{Seed: 1}),
	}
}

type dice struct{ rng *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return len(p), nil
}

// content makes n bytes that nothing else has.
func (im *image) content(n int) []byte {
	im.seed++
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], im.seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// blank makes a pool with nothing in it.
func blank(ctx context.Context, k kind) (sim.Rack, error) {
	d := sim.Rack{sim.NewDisk(diskBytes, sim.DiskOptions{WriteThrough: true, Name: "x"})}
	if k != oneDrive {
		d = append(d, sim.NewDisk(diskBytes, sim.DiskOptions{WriteThrough: true, Name: "y"}))
	}
	devices, o := d.Paths(), api.CreateOptions{}
	if k == withStaging {
		devices, o.Staging = devices[:1], devices[1:]
	}
	_, err := mpool.Create(ctx, poolName, devices, o, options(d))
	return d, err
}

// scenario uses a pool twice, the first time to a clean end. The disks may lie.
func scenario(ctx context.Context, k kind, d sim.Rack, unclean bool) *image {
	im := &image{
		disks: d, kind: k, unclean: unclean,
		objects: make(map[layout.ObjectID]*expected), gone: make(map[layout.ObjectID]bool),
	}
	im.trouble = im.use(ctx, false, im.first)
	if im.trouble == nil {
		im.trouble = im.use(ctx, unclean, im.second)
	}
	for _, disk := range d {
		for _, n := range disk.FaultHits() {
			im.hits += n
		}
		disk.Heal()
	}
	return im
}

// use activates the pool for f. After an unclean stop the disks are as they were when
// f had ended.
func (im *image) use(ctx context.Context, unclean bool, f func(context.Context, *mpool.Pool) error) error {
	p, err := mpool.Activate(ctx, poolName, im.disks.Paths(), api.ActivateOptions{}, options(im.disks))
	if err != nil {
		return err
	}
	err = f(ctx, p)
	if err == nil && !unclean {
		return p.Close()
	}
	left := im.disks.Clone()
	if aerr := p.Abandon(ctx); !unclean { // handles are still in use
		return errors.Join(err, aerr)
	}
	im.disks = left
	return err
}

func (im *image) first(ctx context.Context, p *mpool.Pool) error {
	for _, n := range []int{0, 1, 5000, 16 * 4096, 16*4096 + 1, 16*4096 + 1, 200_000, 200_000} {
		if err := im.put(ctx, p, n); err != nil {
			return err
		}
	}
	for range 4 {
		if err := im.log(ctx, p); err != nil {
			return err
		}
	}
	for range 2 {
		if err := im.container(ctx, p); err != nil {
			return err
		}
	}
	// Enough changes for the metadata to be compacted.
	for range 300 {
		id, err := im.small(ctx, p)
		if err != nil {
			return err
		}
		if err := im.remove(ctx, p, id); err != nil {
			return err
		}
	}
	return nil
}

func (im *image) second(ctx context.Context, p *mpool.Pool) error {
	for range 80 { // pages of metadata
		if _, err := im.small(ctx, p); err != nil {
			return err
		}
	}
	if err := im.put(ctx, p, 90_000); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(im.objects)) {
		if im.objects[id].kind == aLog {
			if err := im.extend(ctx, p, id, !im.unclean, 3000, 3000, 9000); err != nil {
				return err
			}
		}
	}
	if err := im.setRoot(ctx, p); err != nil {
		return err
	}
	return im.put(ctx, p, 3000)
}

// alloc allocates on the classes in turn.
func (im *image) alloc(capacity int64) api.AllocOptions {
	o := api.AllocOptions{Capacity: capacity}
	if im.turn++; im.kind == withStaging && im.turn%2 == 0 {
		o.Class = api.ClassStaging
	}
	return o
}

// put writes and commits an mblock of n bytes.
func (im *image) put(ctx context.Context, p *mpool.Pool, n int) error {
	data := im.content(n)
	m, err := p.AllocMblock(ctx, im.alloc(int64(n)))
	if err != nil {
		return err
	}
	im.objects[m.ID()] = &expected{data: data, maybe: true}
	if n > 0 {
		if _, err := m.Write(ctx, data); err != nil {
			return err
		}
	}
	if err := m.Commit(ctx); err != nil {
		return err
	}
	im.objects[m.ID()].maybe = false
	return m.Put()
}

// small makes an mblock in one call.
func (im *image) small(ctx context.Context, p *mpool.Pool) (layout.ObjectID, error) {
	if err := im.put(ctx, p, 0); err != nil {
		return 0, err
	}
	var last layout.ObjectID
	for id := range im.objects { // order does not matter
		if id.Kind() == layout.KindMblock {
			last = max(last, id)
		}
	}
	return last, nil
}

func (im *image) remove(ctx context.Context, p *mpool.Pool, id layout.ObjectID) error {
	m, err := p.Mblock(ctx, id)
	if err != nil {
		return err
	}
	im.objects[id].maybe = true
	if err := m.Delete(ctx); err != nil {
		return err
	}
	delete(im.objects, id)
	im.gone[id] = true
	return nil
}

func (im *image) setRoot(ctx context.Context, p *mpool.Pool) error {
	im.root = slices.Max(slices.Collect(maps.Keys(im.objects)))
	return p.SetRoots(ctx, []api.Root{{Name: "root", ID: im.root}})
}

func (im *image) log(ctx context.Context, p *mpool.Pool) error {
	l, err := p.AllocMlog(ctx, im.alloc(60_000))
	if err != nil {
		return err
	}
	im.objects[l.ID()] = &expected{kind: aLog, maybe: true}
	if err := l.Commit(ctx); err != nil {
		return err
	}
	im.objects[l.ID()].maybe = false
	if err := l.Put(); err != nil {
		return err
	}
	return im.extend(ctx, p, l.ID(), true, 100, 0, 5000, 12_000, 1)
}

// extend appends records, each synced, and closes the log or leaves it open.
func (im *image) extend(ctx context.Context, p *mpool.Pool, id layout.ObjectID, closed bool, sizes ...int) error {
	l, err := p.Mlog(ctx, id)
	if err != nil {
		return err
	}
	a, err := l.OpenAppend(ctx)
	if err != nil {
		return err
	}
	x := im.objects[id]
	for _, n := range sizes {
		rec := im.content(n)
		x.records, x.maybe = append(x.records, rec), true
		if _, err := a.Append(ctx, rec, true); err != nil {
			return err
		}
		x.maybe = false
	}
	if !closed {
		return nil
	}
	return errors.Join(a.Close(ctx), l.Put())
}

// container makes a container that has been compacted.
func (im *image) container(ctx context.Context, p *mpool.Pool) error {
	id, err := p.CreateMDC(ctx, im.alloc(40_000))
	if err != nil {
		return err
	}
	x := &expected{kind: aContainer, maybe: true}
	im.objects[id] = x
	c, err := p.OpenMDC(ctx, id)
	if err != nil {
		return err
	}
	add := func(f func(context.Context, []byte) error, n int) error {
		rec := im.content(n)
		x.records, x.all = append(x.records, rec), append(x.all, rec)
		return f(ctx, rec)
	}
	appendOne := func(ctx context.Context, b []byte) error { return c.Append(ctx, b, true) }
	for range 4 {
		if err := add(appendOne, 3000); err != nil {
			return err
		}
	}
	if err := c.CompactStart(ctx); err != nil {
		return err
	}
	x.records = nil
	if err := add(c.CompactAppend, 6000); err != nil {
		return err
	}
	if err := c.CompactEnd(ctx); err != nil {
		return err
	}
	if err := add(appendOne, 2000); err != nil {
		return err
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	x.maybe = false
	return nil
}

// has says whether a container ever had the record.
func (x *expected) has(rec []byte) bool {
	for _, r := range x.all {
		if bytes.Equal(r, rec) {
			return true
		}
	}
	return false
}

func (k objectKind) String() string {
	return [...]string{"mblock", "log", "container"}[k]
}

func wrongf(format string, args ...any) error { return fmt.Errorf(format, args...) }
