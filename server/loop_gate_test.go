package server

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// gate is a device whose operations end when the test lets them, in the order in
// which they came.
type gate struct {
	path string
	file *os.File
	size int64

	discards bool // are done, and do nothing

	mu    sync.Mutex
	spoil func(*bdev.Op)      // called before an operation's end is told; or nil
	shut  func(*bdev.Op) bool // which operations wait; nil: none
	held  []*bdev.Op
	began int // reads and writes
}

func (g *gate) Geometry() bdev.Geometry {
	return bdev.Geometry{Path: g.path, Size: g.size, LogicalSector: 4096, PhysicalSector: 4096, Regular: true, Discard: g.discards, DiscardUnit: 4096}
}

func (g *gate) Name() string { return "gate" }

func (g *gate) Start(ops []*bdev.Op) {
	var now []*bdev.Op
	g.mu.Lock()
	for _, o := range ops {
		if readsAndWrites(o) {
			g.began++
		}
		if g.shut != nil && g.shut(o) {
			g.held = append(g.held, o)
		} else {
			now = append(now, o)
		}
	}
	g.mu.Unlock()
	for _, o := range now {
		g.finish(o)
	}
}

// finish does an operation.
func (g *gate) finish(o *bdev.Op) {
	bufs, at := o.Vec, o.Offset
	if o.Buf != nil {
		bufs = [][]byte{o.Buf}
	}
	var err error
	for _, b := range bufs {
		if err == nil && o.Code == bdev.OpRead {
			_, err = g.file.ReadAt(b, at)
		} else if err == nil && o.Code == bdev.OpWrite {
			_, err = g.file.WriteAt(b, at)
		}
		at += int64(len(b))
	}
	g.mu.Lock()
	spoil := g.spoil
	g.mu.Unlock()
	if spoil != nil {
		spoil(o)
	}
	o.Complete(err)
}

func (g *gate) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }

func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.held) > 0 {
		panic("the device is closed with operations under way")
	}
	return g.file.Close()
}

// hold keeps operations from ending, of those that come from now on.
func (g *gate) hold(which func(*bdev.Op) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = which
}

func readsAndWrites(o *bdev.Op) bool { return o.Code == bdev.OpRead || o.Code == bdev.OpWrite }

// release lets the first operation end, and says whether there was one.
func (g *gate) release() bool {
	g.mu.Lock()
	var o *bdev.Op
	if len(g.held) > 0 {
		o, g.held = g.held[0], g.held[1:]
	}
	g.mu.Unlock()
	if o != nil {
		g.finish(o)
	}
	return o != nil
}

// open lets everything end, now and later.
func (g *gate) open() {
	g.hold(nil)
	for g.release() {
	}
}

// waiting returns the sizes of what is held.
func (g *gate) waiting() []int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]int64, len(g.held))
	for i, o := range g.held {
		list[i] = o.Size()
	}
	return list
}

// gates are the devices of a rig by path.
type gates struct {
	discards bool // of devices that are opened

	mu   sync.Mutex
	list []*gate
}

func (gs *gates) openDrive(_ context.Context, path string, _ bool) (*bdev.Drive, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	g := &gate{path: path, file: f, size: st.Size(), discards: gs.discards}
	gs.mu.Lock()
	gs.list = append(gs.list, g)
	gs.mu.Unlock()
	return bdev.NewDrive(nil, g), nil
}

// last returns the device that was opened last.
func (gs *gates) last() *gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.list[len(gs.list)-1]
}

// newGateRig is a rig whose pool "data" is on a gate.
func newGateRig(t *testing.T, change ...func(*Options)) (*rig, *gate) {
	t.Helper()
	return newGateRigOn(t, new(gates), change...)
}

func newGateRigOn(t *testing.T, gs *gates, change ...func(*Options)) (*rig, *gate) {
	t.Helper()
	change = append(change, func(o *Options) { o.Backend = Engine{Options: mpool.Options{Open: gs.openDrive}} })
	r := newLoopRig(t, change...)
	g := gs.last()
	t.Cleanup(g.open) // before the rig stops
	return r, g
}

// until waits for something that others bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(inVain); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// held waits until so many operations are held.
func (g *gate) heldAtLeast(t *testing.T, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d operations are held", n), func() bool { return len(g.waiting()) >= n })
}
