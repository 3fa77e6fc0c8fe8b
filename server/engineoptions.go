package server

import (
	"context"
	"fmt"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool"
)

// EngineOptions are what the pools of an [Engine] run with.
type EngineOptions struct {
	IO            string // "auto" (io_uring, or pread where it is refused), "io_uring" or "pread"
	QueueDepth    int    // operations that a drive has under way at most, 1 to 16384
	Workers       int    // threads that a drive blocks at most, 1 to 1024
	SumCacheBytes int64  // of each pool's cache of checksum pages, 1 MiB to 64 GiB
	NoDiscard     bool   // leave freed zones as they are
}

// DefaultEngineOptions returns what the engine takes by itself.
func DefaultEngineOptions() EngineOptions {
	return EngineOptions{IO: bdev.Auto.String(), QueueDepth: 256, Workers: 32, SumCacheBytes: 64 << 20}
}

// engineKind returns the kind of a name.
func engineKind(name string) (bdev.EngineKind, bool) {
	for _, k := range []bdev.EngineKind{bdev.Auto, bdev.URing, bdev.Pread} {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// Validate says which option is wrong: a *LimitError.
func (o EngineOptions) Validate() error {
	if _, ok := engineKind(o.IO); !ok {
		return &LimitError{Name: "io", Detail: fmt.Sprintf("is %q: want auto, io_uring or pread", o.IO)}
	}
	for _, c := range []struct {
		name      string
		v, lo, hi int64
	}{
		{"queue_depth", int64(o.QueueDepth), 1, 16384},
		{"workers", int64(o.Workers), 1, 1024},
		{"sum_cache_bytes", o.SumCacheBytes, 1 << 20, 1 << 36},
	} {
		if c.v < c.lo || c.v > c.hi {
			return &LimitError{Name: c.name, Detail: fmt.Sprintf("is %d: want %d to %d", c.v, c.lo, c.hi)}
		}
	}
	return nil
}

// NewEngine makes the backend of real pools.
func NewEngine(o EngineOptions) (Engine, error) {
	if err := o.Validate(); err != nil {
		return Engine{}, fmt.Errorf("engine: %w", err)
	}
	kind, _ := engineKind(o.IO) // valid, as Validate says
	open := func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
		return bdev.Open(ctx, nil, path, bdev.OpenOptions{
			ReadOnly: readOnly, Shared: readOnly, Engine: kind, QueueDepth: o.QueueDepth, MaxWorkers: o.Workers,
		})
	}
	return Engine{Options: mpool.Options{Open: open, NoDiscard: o.NoDiscard, SumCacheBytes: o.SumCacheBytes}}, nil
}
