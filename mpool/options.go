package mpool

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// Options are what a pool runs on. The zero value is the real world with
// defaults.
type Options struct {
	// Sched is nil in the real world, else the simulation the pool runs in.
	Sched *sched.Sched
	// Open opens a drive; nil: bdev.Open.
	Open func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error)
	// Devices lists the host's block devices; nil: those of /sys/class/block.
	Devices func() ([]string, error)
	// Rand gives UUIDs their bits; nil: crypto/rand.
	Rand io.Reader
	// MetadataBytes is the size of each of the two metadata logs at creation;
	// 0: by the formula of docs/format.md.
	MetadataBytes int64
	// NoDiscard leaves freed zones as they are.
	NoDiscard bool
	// SumCacheBytes bounds the cache of checksum pages; 0: 64 MiB.
	SumCacheBytes int64
	// Admit is asked before each background step and may wait; nil: always. done is
	// called once, when the step has ended. An error that is not the context's puts the
	// step off.
	Admit func(ctx context.Context, p Priority) (done func(), err error)
	// OnEvent is told of events, from any task; nil: nobody is. It must not
	// block, and must not call the pool.
	OnEvent func(Event)
}

func (o Options) withDefaults() Options {
	if o.Open == nil {
		s := o.Sched
		o.Open = func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
			return bdev.Open(ctx, s, path, bdev.OpenOptions{ReadOnly: readOnly, Shared: readOnly})
		}
	}
	if o.Devices == nil {
		o.Devices = blockDevices
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.SumCacheBytes == 0 {
		o.SumCacheBytes = 64 << 20
	}
	if o.Admit == nil {
		o.Admit = func(context.Context, Priority) (func(), error) { return func() {}, nil }
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	return o
}

// How long a background step that was refused waits until it asks again.
const (
	refusedPause = 10 * time.Millisecond
	refusedMost  = time.Second
)

// admitted asks for a background step until it is admitted, or until the
// context ends, whose error it returns. done is called when the step has ended.
func (o Options) admitted(ctx context.Context, p Priority) (done func(), err error) {
	for pause := refusedPause; ; pause = min(2*pause, refusedMost) {
		if done, err := o.Admit(ctx, p); err == nil {
			return done, nil
		}
		if err := o.Sched.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func (o Options) newUUID() (uuid.UUID, error) { return uuid.NewRandomFromReader(o.Rand) }
