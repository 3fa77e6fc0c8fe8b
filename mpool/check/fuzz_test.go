package check_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// newSmall makes a small pool with something of everything, and returns where
// its pages are that are not zero.
func newSmall(t testing.TB) (*devsim.Disk, []int64) {
	t.Helper()
	disk := devsim.NewDisk(8<<20, devsim.DiskOptions{WriteThrough: true})
	_, err := mpool.Create(bg, "pool", []string{"x"}, api.CreateOptions{}, options(disk))
	do(t, err)
	use(t, disk, func(p *mpool.Pool) {
		put(t, p, 0)
		put(t, p, 5000)
		put(t, p, 17*4096)
		putLog(t, p, 30000, 10, 9000, 0)
		id, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 30000})
		do(t, err)
		useContainer(t, p, id)
		_, err = p.AddOwner(bg, "tenant", 0)
		do(t, err)
	})
	use(t, disk, func(p *mpool.Pool) {
		for range 40 {
			put(t, p, 0)
		}
	})
	var used []int64
	for off := int64(0); off < disk.Size(); off += page {
		if !bytes.Equal(readPage(t, disk, off), make([]byte, page)) {
			used = append(used, off)
		}
	}
	return disk, used
}

// damage changes a disk as the bytes say: each change takes 12.
//
//	0 what | 1 how wide | 2 page 2 | 4 offset 2 | 6 another page 2 | 8 value 4
func damage(d *devsim.Disk, used []int64, program []byte) {
	for ; len(program) >= 12; program = program[12:] {
		at := used[int(le.Uint16(program[2:]))%len(used)]
		off := int(le.Uint16(program[4:])) % page
		other := used[int(le.Uint16(program[6:]))%len(used)]
		value := program[8 : 8+min(1+int(program[1]&3), page-off)]
		b := make([]byte, page)
		switch program[0] % 6 {
		case 0: // rot
			d.FlipBit(at+int64(off), uint(program[8]))
		case 1: // a page gone
			d.SetUnreadable(at, page)
		case 2: // a page in the place of another
			if _, err := d.ReadAt(b, other); err == nil {
				_, _ = d.WriteAt(b, at)
			}
		case 3: // other bytes, with a checksum that is right
			change(d, at, off, value)
		case 4: // the same in all superblocks
			for _, copyAt := range []int64{0, omf.SecondCopyOffset, d.Size() - page} {
				change(d, copyAt, off, value)
			}
		case 5: // a page that was never written
			_, _ = d.WriteAt(b, at)
		}
	}
}

// change writes bytes into a page and makes its checksum right, if it is one
// with a checksum.
func change(d *devsim.Disk, at int64, off int, value []byte) {
	b := make([]byte, page)
	if _, err := d.ReadAt(b, at); err != nil {
		return
	}
	copy(b[off:], value)
	switch {
	case bytes.HasPrefix(b, []byte("mpoolSB1")):
		sealSuperblock(b)
	case le.Uint32(b) == mlog.Magic:
		binary.LittleEndian.PutUint32(b[64:], mlog.PageCRC(b))
	}
	_, _ = d.WriteAt(b, at)
}

// agree checks a damaged disk and compares with what activation says: a pool
// without problems can be activated and read. The other way round it need not
// be: the checker looks at more.
func agree(t *testing.T, disk *devsim.Disk) (ok bool) {
	t.Helper()
	o := check.Options{Data: true, Reads: 1, Open: opener(disk)}
	r, err := check.Run(bg, []string{"d0"}, o)
	do(t, err)
	o.Reads = 4
	again, err := check.Run(bg, []string{"d0"}, o)
	do(t, err)
	if diff := cmp.Diff(r, again); diff != "" {
		t.Fatalf("two checks differ: %s", diff)
	}
	do(t, check.Dump(bg, []string{"d0"}, check.Options{Open: opener(disk)}, discard))
	if !r.OK {
		return false
	}
	for _, n := range r.Notes {
		if n.Code == check.PoolDestroyed || n.Code == check.SuperblockFeatures {
			return true // activation refuses it, rightly
		}
	}
	p, err := mpool.Activate(bg, r.UUID, []string{"x"}, api.ActivateOptions{}, options(disk.Clone()))
	if errors.Is(err, api.ESTATE) || errors.Is(err, api.ENOTSUP) {
		return true // the superblock is whole, but not for this device
	}
	if err == nil {
		err = readAll(p)
	}
	if err != nil {
		t.Fatalf("the check finds nothing, activation does: %v", err)
	}
	return true
}

// objectsBegin says where on a good disk objects may lie.
func objectsBegin(t testing.TB, disk *devsim.Disk) int64 {
	t.Helper()
	sb, err := omf.Decode(readPage(t, disk, 0))
	do(t, err)
	last := sb.Logs[1]
	return int64(last.Start+uint64(last.Blocks)) * page
}

// bear has the engine use a damaged disk: it is activated, everything is scrubbed
// and read, whatever comes of it, and ends. An activation that fails has written
// nothing but the superblock, whose epoch fences others off before anything is read;
// afterwards nothing is written but metadata, which activation may have to mend.
func bear(t *testing.T, disk *devsim.Disk, objects int64) {
	t.Helper()
	watchdog := time.AfterFunc(5*time.Minute, func() { panic("it hangs") })
	defer watchdog.Stop()
	var beside, data atomic.Int64 // writes beside the superblocks, and to objects
	o := options(disk)
	o.Open = func(_ context.Context, _ string, readOnly bool) (*bdev.Drive, error) {
		return devsim.Open(nil, disk, devsim.OpenOptions{ReadOnly: readOnly, OnIO: func(b devsim.Boundary) bool {
			off := b.Op.Offset
			if b.Op.Code == bdev.OpWrite && off != 0 && off != omf.SecondCopyOffset && off != disk.Size()-page {
				beside.Add(1)
				if off >= objects {
					data.Add(1)
				}
			}
			return false
		}})
	}
	p, err := mpool.Activate(bg, "pool", []string{"x"}, api.ActivateOptions{}, o)
	if err != nil {
		if n := beside.Load(); n > 0 {
			t.Errorf("an activation that fails has written %d times: %v", n, err)
		}
		return
	}
	for from := (api.ScrubCursor{}); ; {
		step, err := p.Scrub(bg, from, 1<<20)
		if err != nil || step.Done {
			break
		}
		if step.Next == from {
			t.Fatalf("the scrub does not go on from %+v", from)
		}
		from = step.Next
	}
	if n := data.Load(); n > 0 {
		t.Errorf("a scrub has written %d times", n)
	}
	for o, err := range p.Objects(bg, api.Filter{}) {
		if err != nil {
			break
		}
		_ = readObject(p, &o) // whatever it says
	}
	_ = p.Abandon(bg) // objects that could not be read are still in use
}

// readAll reads everything in a pool and deactivates it.
func readAll(p *mpool.Pool) error {
	var objects, mblocks int64
	for o, err := range p.Objects(bg, api.Filter{}) {
		if err != nil {
			return err
		}
		objects++
		if err := readObject(p, &o); err != nil {
			return fmt.Errorf("%v %v: %w", o.Kind, o.ID, err)
		}
		if o.Kind == layout.KindMblock {
			mblocks++
		}
	}
	info, err := p.Info(bg)
	if err == nil && (info.Mblocks != mblocks || info.Mblocks+info.Mlogs != objects) {
		err = fmt.Errorf("%d mblocks of %d objects: %+v", mblocks, objects, info)
	}
	return errors.Join(err, p.Close())
}

func readObject(p *mpool.Pool, o *api.ObjectInfo) error {
	switch {
	case o.Kind == layout.KindMblock:
		b, err := p.Mblock(bg, o.ID)
		if err != nil {
			return err
		}
		_, err = b.WriteTo(io.Discard)
		return errors.Join(err, b.Put())
	case o.Partner != 0:
		c, err := p.OpenMDC(bg, o.ID)
		if err != nil {
			return err
		}
		r, err := c.OpenRead(bg)
		if err == nil {
			err = errors.Join(readLog(r), r.Close())
		}
		return errors.Join(err, c.Close(bg))
	}
	l, err := p.Mlog(bg, o.ID)
	if err != nil {
		return err
	}
	r, err := l.OpenRead(bg)
	if err == nil {
		err = errors.Join(readLog(r), r.Close())
	}
	return errors.Join(err, l.Put())
}

func readLog(r api.LogReader) error {
	buf := make([]byte, 64<<10)
	for {
		if _, err := r.Next(bg, buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Whatever is on a drive: the check ends, without a panic, says the same twice,
// and finds what activation trips over; activation, reading and scrub end, too, and
// write nothing where they fail.
//
// proves S43 S45
func FuzzCheck(f *testing.F) {
	disk, used := newSmall(f)
	objects := objectsBegin(f, disk)
	rng := rand.New(rand.NewPCG(4, 5))
	for what := range byte(6) {
		for range 8 {
			b := make([]byte, 24)
			_, err := io.ReadFull(dice{rng}, b)
			do(f, err)
			b[0], b[12] = what, byte(rng.IntN(6))
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		d := disk.Clone()
		damage(d, used, program[:min(len(program), 120)])
		agree(t, d)
		bear(t, d, objects)
	})
}

var agreeSeeds = flag.Uint64("check.seeds", 100, "how many damaged pools TestAgreement tries")

// Random damage: the check finds all of it that activation and reading find.
//
// proves S45
func TestAgreement(t *testing.T) {
	disk, used := newSmall(t)
	objects := objectsBegin(t, disk)
	if !agree(t, disk) {
		t.Fatal("the good pool has problems")
	}
	clean := 0
	for seed := range *agreeSeeds {
		rng := rand.New(rand.NewPCG(seed, 11))
		program := make([]byte, 12*(1+rng.IntN(3)))
		_, err := io.ReadFull(dice{rng}, program)
		do(t, err)
		d := disk.Clone()
		damage(d, used, program)
		if agree(t, d) {
			clean++
		}
		bear(t, d, objects)
		if t.Failed() {
			t.Fatalf("seed %d: %x", seed, program)
		}
	}
	if clean == 0 || clean == int(*agreeSeeds) {
		t.Fatalf("%d of %d damaged pools have no problem", clean, *agreeSeeds)
	}
	t.Logf("%d of %d damaged pools have no problem", clean, *agreeSeeds)
}

// A context that ends ends the check.
func TestContext(t *testing.T) {
	disk, _ := newSmall(t)
	for n := range 60 {
		ctx, cancel := context.WithCancel(bg)
		open := opener(disk)
		left := n
		o := check.Options{Data: true, Reads: 1, Open: func(ctx context.Context, path string) (check.Source, error) {
			s, err := open(ctx, path)
			return counting{s, func() {
				if left--; left < 0 {
					cancel()
				}
			}}, err
		}}
		_, err := check.Run(ctx, []string{"d0"}, o)
		if left < 0 && err != nil && !errors.Is(err, api.ECANCELED) {
			t.Fatalf("cancelled at read %d: %v", n, err)
		}
		if left < -8 {
			t.Fatalf("cancelled at read %d and went on for %d", n, -left)
		}
		cancel()
	}
}

type counting struct {
	check.Source
	before func()
}

func (c counting) ReadAt(p []byte, off int64) (int, error) {
	c.before()
	return c.Source.ReadAt(p, off)
}
