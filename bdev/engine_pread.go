package bdev

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// preadEngine does I/O by pread, pwrite and fdatasync, each blocking a thread
// of the operating system.
type preadEngine struct {
	dev  *device
	pool workers
}

func newPreadEngine(dev *device, o *OpenOptions) *preadEngine {
	e := &preadEngine{dev: dev}
	e.pool.init(o.MaxWorkers, o.QueueDepth, dev.do)
	return e
}

// Geometry returns what is known of the device.
func (e *preadEngine) Geometry() Geometry { return e.dev.geo }

// Name returns "pread".
func (e *preadEngine) Name() string { return "pread" }

// Start hands the operations to workers.
func (e *preadEngine) Start(ops []*Op) { e.pool.start(context.Background(), ops) }

func (e *preadEngine) startNow(o *Op) { e.pool.force(o) }

func (e *preadEngine) startContext(ctx context.Context, ops []*Op) { e.pool.start(ctx, ops) }

func (e *preadEngine) awaitBatch(ctx context.Context, b *Batch) error { return b.done.Wait(ctx) }

func (e *preadEngine) inline(o *Op) bool { return e.pool.tryInline(o) }

// Await waits; the workers complete.
func (e *preadEngine) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }

// Close waits for the workers' end and closes the device.
func (e *preadEngine) Close() error {
	if err := e.pool.close(); err != nil {
		return err
	}
	return e.dev.close()
}
