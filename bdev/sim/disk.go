package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// DiscardRead says what a discarded range reads as.
type DiscardRead uint8

// What a discarded range reads as.
const (
	DiscardAny     DiscardRead = iota // one of the others, drawn for each discard
	DiscardZero                       // zeros
	DiscardOld                        // what it held
	DiscardGarbage                    // bytes that nobody wrote
)

func (r DiscardRead) String() string {
	switch r {
	case DiscardAny:
		return "any"
	case DiscardZero:
		return "zero"
	case DiscardOld:
		return "old"
	case DiscardGarbage:
		return "garbage"
	default:
		return "unknown"
	}
}

// DefaultCacheBytes is how much a disk's write cache holds unless told
// otherwise.
const DefaultCacheBytes = 64 << 20

// DiskOptions are what a disk is like. The zero value is a disk with 512-byte
// sectors, a volatile cache and no discard.
type DiskOptions struct {
	Name           string // what Geometry calls its path; default "sim"
	LogicalSector  int    // bytes: 512 (default) or 4096
	PhysicalSector int    // bytes: 512 or 4096, at least LogicalSector (the default)
	Discard        bool   // discards do something
	DiscardRead    DiscardRead
	WriteThrough   bool  // no volatile cache: a write that ended is durable
	CacheBytes     int64 // when the cache holds more, the oldest writes become durable; default DefaultCacheBytes
}

func (o *DiskOptions) fill() {
	if o.Name == "" {
		o.Name = "sim"
	}
	if o.LogicalSector == 0 {
		o.LogicalSector = sectorSize
	}
	if o.PhysicalSector == 0 {
		o.PhysicalSector = o.LogicalSector
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
}

func (o *DiskOptions) validate(size int64) error {
	sector := func(n int) bool { return n == sectorSize || n == pageSize }
	switch {
	case !sector(o.LogicalSector), !sector(o.PhysicalSector), o.PhysicalSector < o.LogicalSector:
		return fmt.Errorf("sectors of %d and %d bytes: want 512 or 4096, physical at least logical", o.LogicalSector, o.PhysicalSector)
	case size <= 0 || size%pageSize != 0:
		return fmt.Errorf("size %d: want a multiple of %d", size, pageSize)
	case o.CacheBytes < 0:
		return fmt.Errorf("cache of %d bytes", o.CacheBytes)
	}
	return nil
}

// Disk is a medium with its write cache. It outlives power cuts and processes;
// one process at a time has it open. Safe for concurrent use.
type Disk struct {
	opts DiskOptions
	size int64

	mu sched.Mutex // see "Locks" in the package comment
	// +checklocks:mu
	durable *medium
	// +checklocks:mu
	current *medium // what reads see; the same as durable while nothing is volatile
	// +checklocks:mu
	pending []*write // in the cache, in the order of their ends
	// +checklocks:mu
	pendingBytes int64
	// +checklocks:mu
	underway []*write // in the order of their starts
	// +checklocks:mu
	starts uint64 // writes started
	// +checklocks:mu
	ends uint64 // writes ended
	// +checklocks:mu
	holders []*engine // who has it open
	// +checklocks:mu
	faults []*fault
	// +checklocks:mu
	vanished bool
}

// NewDisk makes a disk of size bytes, a multiple of 4096, that reads as zeros.
// It panics when the options make no sense. A disk costs memory only for what
// is written to it.
func NewDisk(size int64, o DiskOptions) *Disk {
	o.fill()
	if err := o.validate(size); err != nil {
		panic("sim: new disk: " + err.Error())
	}
	m := newMedium(size)
	return &Disk{opts: o, size: size, durable: m, current: m}
}

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Options returns what the disk is like, defaults filled in.
func (d *Disk) Options() DiskOptions { return d.opts }

// ReadAt reads what a drive would read now, past faults and latency: bytes at
// any place, aligned or not. It is how a test or an offline checker looks at
// the disk. Unreadable sectors give EIO, the end of the disk io.EOF.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, syscall.EINVAL)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= d.size {
			return done, io.EOF
		}
		n := min(len(p)-done, int(pageSize-at%pageSize))
		content, bad := d.current.page(at / pageSize)
		if bad {
			return done, fmt.Errorf("read %s at %d: unreadable sector: %w", d.opts.Name, at, syscall.EIO)
		}
		if content == nil {
			clear(p[done : done+n])
		} else {
			copy(p[done:done+n], content[at%pageSize:])
		}
		done += n
	}
	return done, nil
}

// WriteAt writes bytes at any place, past faults and cache: they are durable
// at once, and whatever the cache held for the sectors touched is forgotten
// (their other bytes become durable as they are read now). A physical sector
// written whole is readable again.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write %s at %d: outside the disk of %d bytes: %w", d.opts.Name, off, d.size, syscall.EINVAL)
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		from := at % pageSize
		n := min(len(p)-done, int(pageSize-from))
		content, _ := d.current.page(at / pageSize)
		data := new(page)
		if content != nil {
			*data = *content
		}
		copy(data[from:], p[done:done+n])
		d.settleLocked(piece{index: at / pageSize, mask: maskOf(from, from+int64(n)), data: data})
		done += n
	}
	return len(p), nil
}

// settleLocked makes a piece durable and current, over everything volatile.
//
// +checklocks:d.mu
func (d *Disk) settleLocked(p piece) {
	for _, list := range [][]*write{d.pending, d.underway} {
		for i, w := range list {
			list[i] = w.without(p.index, p.mask)
		}
	}
	d.durable.apply(p)
	if d.current != d.durable {
		d.current.apply(p)
	}
}

// FlipBit flips a bit (0 to 7) of the byte at off wherever the byte is held:
// on the medium, in the cache, in what reads see.
func (d *Disk) FlipBit(off int64, bit uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	index, at := off/pageSize, off%pageSize
	flip := byte(1) << (bit % 8)
	d.durable.ownPage(index)[at] ^= flip
	if d.current != d.durable {
		d.current.ownPage(index)[at] ^= flip
	}
	for i, w := range d.pending {
		d.pending[i] = w.flipped(index, at, flip)
	}
}

// SetUnreadable makes the 4096-byte sectors that [off, off+size) touches
// unreadable until they are written whole.
func (d *Disk) SetUnreadable(off, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for index := off / pageSize; index*pageSize < off+size; index++ {
		d.durable.setBad(index)
		if d.current != d.durable {
			d.current.setBad(index)
		}
	}
}

// Clone returns a copy: medium, cache and writes under way as they stand,
// without faults and not open. Call Kill or PowerCut on it, or just open it:
// writes under way then never arrived. Clones share memory until they differ.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &Disk{
		opts: d.opts, size: d.size, durable: d.durable.clone(),
		pending: append([]*write(nil), d.pending...), pendingBytes: d.pendingBytes,
		starts: d.starts, ends: d.ends,
	}
	n.current = n.durable
	if d.current != d.durable {
		n.current = d.current.clone()
	}
	for _, w := range d.underway {
		c := *w
		c.pieces = append([]piece(nil), w.pieces...) // w goes on fetching
		n.underway = append(n.underway, &c)
	}
	return n
}

// Durable returns what the medium alone holds: the survivor that lost all that
// was volatile.
func (d *Disk) Durable() *Disk {
	n, _ := d.Survivor(nil, CutOptions{Mode: CutNone})
	return n
}

// Vanish takes the device away: from now on every operation gets ENODEV, also
// those under way, until PowerCut brings it back.
func (d *Disk) Vanish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vanished = true
}

// geometry describes the disk to an engine.
func (d *Disk) geometry() bdev.Geometry {
	g := bdev.Geometry{
		Path: d.opts.Name, Size: d.size,
		LogicalSector: d.opts.LogicalSector, PhysicalSector: d.opts.PhysicalSector,
		Discard: d.opts.Discard, WriteCache: !d.opts.WriteThrough,
	}
	if d.opts.Discard {
		g.DiscardUnit = pageSize
	}
	return g
}

// garbage returns a page that nobody wrote.
func garbage(rng *rand.Rand) *page {
	p := new(page)
	for i := 0; i < pageSize; i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			p[i+k] = byte(v >> (8 * k))
		}
	}
	return p
}
