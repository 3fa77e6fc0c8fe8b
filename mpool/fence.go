package mpool

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// fencePeriod is how often the superblock is re-read while the pool writes.
const fencePeriod = time.Second

// fence notices that somebody else has activated the pool: two paths to one
// drive that the kernel does not know to be one. It detects, it does not
// prevent; the one whose epoch is lower turns read-only.
//
// Its task lives while there are writes, and a period longer. At the end it has
// the metadata log say that its last group was durable.
type fence struct {
	pool   *Pool
	ctx    context.Context
	cancel context.CancelFunc

	mu   sched.Mutex
	cond sched.Cond // the task has ended
	// +checklocks:mu
	running bool
	// +checklocks:mu
	closed bool

	touched atomic.Bool // there were writes since the last look
}

func newFence(p *Pool) *fence {
	f := &fence{pool: p}
	f.ctx, f.cancel = p.sched.WithCancel(context.Background())
	f.mu.Init(p.sched, sched.RankQueue)
	f.cond.Init(p.sched, &f.mu)
	return f
}

// touch says that the pool writes.
func (f *fence) touch() {
	if f.touched.Swap(true) {
		return // the task will see it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running || f.closed {
		return
	}
	f.running = true
	f.pool.sched.Go("fence", f.run)
}

func (f *fence) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.touched.Swap(false) && !f.closed {
		f.mu.Unlock()
		if f.pool.sched.Sleep(f.ctx, fencePeriod) == nil {
			f.look()
			f.pool.meta.confirm(&f.touched)
		}
		f.mu.Lock()
	}
	f.running = false
	f.cond.Broadcast()
}

// look re-reads the first superblock copy. One that cannot be read or is
// damaged says nothing; the others are there for activation.
func (f *fence) look() {
	p := f.pool
	ours := p.sb.Load()
	b := make([]byte, omf.SuperblockSize)
	if readAt(f.ctx, p.metaDrive().dev, b, 0) != nil {
		return
	}
	sb, err := omf.Decode(b)
	if err != nil || sb.Pool == ours.Pool && sb.Epoch <= p.epoch() {
		return
	}
	p.meta.fail(api.Errorf(api.ESTALE, "pool", "the drive was activated elsewhere: its epoch is %d, ours %d", sb.Epoch, p.epoch()))
}

// close ends the task and waits for it.
func (f *fence) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.cancel()
	for f.running {
		if f.cond.Wait(context.Background()) != nil {
			return
		}
	}
}
