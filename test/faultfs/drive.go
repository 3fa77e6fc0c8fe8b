package faultfs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// Options are what a drive is like. The zero value is a drive with sectors of
// 512 bytes over physical ones of 4096, a volatile cache and discard.
type Options struct {
	Disk *sim.Disk // an existing disk, say a survivor of a power cut; nil: a new one
	Seed uint64    // of the dice that failed operations throw
}

// Drive is a file that stands for a drive. Safe for concurrent use.
type Drive struct {
	Path string // of the file

	seed  uint64
	size  int64 // bytes
	mount *mount

	mu   sync.Mutex
	cond *sync.Cond // waiting has changed
	// +checklocks:mu
	disk *sim.Disk
	// +checklocks:mu
	drive *bdev.Drive
	// +checklocks:mu
	stalls map[*stall]struct{}
	// +checklocks:mu
	waiting int
	// +checklocks:mu
	shorten int // writes to be cut short; negative: all
	// +checklocks:mu
	freezer *Freezer
}

// Stall says which operations hang.
type Stall struct {
	Code     bdev.OpCode   // 0: any
	From, To int64         // bytes; what overlaps [From, To); 0, 0: anywhere; flushes lie nowhere
	For      time.Duration // each operation for so long; 0: until released
}

type stall struct {
	Stall
	released chan struct{}
}

func newDrive(size int64, o Options) (*Drive, error) {
	d := &Drive{seed: o.Seed, stalls: make(map[*stall]struct{})}
	d.cond = sync.NewCond(&d.mu)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disk = o.Disk; d.disk == nil {
		d.disk = sim.NewDisk(size, sim.DiskOptions{LogicalSector: 512, PhysicalSector: 4096, Discard: true})
	}
	d.size = d.disk.Size()
	return d, d.openLocked()
}

// +checklocks:d.mu
func (d *Drive) openLocked() (err error) {
	d.drive, err = sim.Open(nil, d.disk, sim.OpenOptions{Seed: d.seed})
	return err
}

// Disk returns the disk below the file: for injecting faults and for looking at
// what is there. It is open; for a power cut there is [Drive.PowerCut].
func (d *Drive) Disk() *sim.Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.disk
}

// Stall makes operations hang, from the next one on. The returned function ends
// it; operations that hang go on then.
func (d *Drive) Stall(s Stall) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &stall{Stall: s, released: make(chan struct{})}
	d.stalls[x] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.releaseLocked(x)
	}
}

// +checklocks:d.mu
func (d *Drive) releaseLocked(x *stall) {
	if _, there := d.stalls[x]; there {
		delete(d.stalls, x)
		close(x.released)
	}
}

// ReleaseAll ends all stalls.
func (d *Drive) ReleaseAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for x := range d.stalls {
		d.releaseLocked(x)
	}
}

// Waiting returns when at least n operations hang; it fails the test when there
// are fewer after 20 seconds.
func (d *Drive) Waiting(tb testing.TB, n int) {
	tb.Helper()
	late := false
	t := time.AfterFunc(patience, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		late = true
		d.cond.Broadcast()
	})
	defer t.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.waiting < n {
		if late {
			tb.Fatalf("%d operations of %s hang, want %d", d.waiting, d.Path, n)
		}
		d.cond.Wait()
	}
}

// Shorten makes the next n writes of more than one sector store their first
// half only, and say so. Negative: all from now on; 0: none.
func (d *Drive) Shorten(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shorten = n
}

// PowerCut cuts the power and brings it back: what was volatile is kept, torn
// or lost. Whoever has the file open can go on to use it, so end those before
// who would not live through a power cut.
func (d *Drive) PowerCut(tb testing.TB, rng *rand.Rand, o sim.CutOptions) sim.Cut {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := d.disk.PowerCut(rng, o)
	if err := errors.Join(d.drive.Close(), d.openLocked()); err != nil {
		tb.Fatal(err)
	}
	return cut
}

// Replace puts another disk of the same size in the place of the drive's. Nobody
// may have the file open.
func (d *Drive) Replace(tb testing.TB, disk *sim.Disk) {
	tb.Helper()
	if disk.Size() != d.size {
		tb.Fatalf("a disk of %d bytes in the place of one of %d", disk.Size(), d.size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.drive.Close()
	d.disk = disk
	if err := errors.Join(err, d.openLocked()); err != nil {
		tb.Fatal(err)
	}
}

// hold waits as long as a freezer and a stall want an operation to. It says
// whether the operation is to be done.
func (d *Drive) hold(code bdev.OpCode, off, size int64) bool {
	d.mu.Lock()
	f := d.freezer
	d.mu.Unlock()
	if f != nil && !f.pass(code) {
		return false
	}
	d.stall(code, off, size)
	return true
}

func (d *Drive) stall(code bdev.OpCode, off, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for x := range d.stalls {
		if !x.matches(code, off, size) {
			continue
		}
		d.waiting++
		d.cond.Broadcast()
		d.mu.Unlock()
		x.wait()
		d.mu.Lock()
		d.waiting--
		d.cond.Broadcast()
		return
	}
}

func (x *stall) matches(code bdev.OpCode, off, size int64) bool {
	switch {
	case x.Code != 0 && x.Code != code:
		return false
	case x.From == 0 && x.To == 0:
		return true
	}
	return code != bdev.OpFlush && off < x.To && off+size > x.From
}

func (x *stall) wait() {
	if x.For == 0 {
		<-x.released
		return
	}
	t := time.NewTimer(x.For)
	defer t.Stop()
	select {
	case <-x.released:
	case <-t.C:
	}
}

// read fills p from an offset. It returns how much of p lies within the drive.
func (d *Drive) read(p []byte, off int64) (int, syscall.Errno) {
	p = p[:max(min(int64(len(p)), d.size-off), 0)]
	if len(p) == 0 {
		return 0, 0
	}
	if !d.hold(bdev.OpRead, off, int64(len(p))) {
		return 0, syscall.EIO
	}
	buf := bdev.AllocBuffer(len(p))
	defer bdev.FreeBuffer(buf)
	if errno := d.run(&bdev.Op{Code: bdev.OpRead, Offset: off, Buf: buf[:len(p)]}); errno != 0 {
		return 0, errno
	}
	return copy(p, buf), 0
}

// write stores p and returns how many bytes of it.
func (d *Drive) write(p []byte, off int64) (int, syscall.Errno) {
	if off+int64(len(p)) > d.size {
		return 0, syscall.ENOSPC // a file here has a fixed size
	}
	if !d.hold(bdev.OpWrite, off, int64(len(p))) {
		return 0, syscall.EIO
	}
	n := d.cut(len(p))
	buf := bdev.AllocBuffer(n)
	defer bdev.FreeBuffer(buf)
	copy(buf, p[:n])
	return n, d.run(&bdev.Op{Code: bdev.OpWrite, Offset: off, Buf: buf[:n]})
}

// cut returns how many of n bytes a write stores.
func (d *Drive) cut(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	sector := d.disk.Options().PhysicalSector
	if d.shorten == 0 || n <= sector {
		return n
	}
	if d.shorten > 0 {
		d.shorten--
	}
	return max(n/2/sector*sector, sector)
}

func (d *Drive) flush() syscall.Errno {
	if !d.hold(bdev.OpFlush, 0, 0) {
		return syscall.EIO
	}
	return d.run(&bdev.Op{Code: bdev.OpFlush})
}

func (d *Drive) discard(off, size int64) syscall.Errno {
	size = min(size, d.size-off)
	if size <= 0 {
		return 0 // beyond the end nothing changes
	}
	if !d.hold(bdev.OpDiscard, off, size) {
		return syscall.EIO
	}
	return d.run(&bdev.Op{Code: bdev.OpDiscard, Offset: off, Length: size})
}

func (d *Drive) run(o *bdev.Op) syscall.Errno {
	d.mu.Lock()
	drive := d.drive
	d.mu.Unlock()
	b := bdev.Batch{Ops: []*bdev.Op{o}}
	err := drive.Run(context.Background(), &b)
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}
