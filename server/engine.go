package server

import (
	"context"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
)

// Engine is the Backend over package mpool: real pools on real drives.
type Engine struct {
	Options mpool.Options // of every pool
}

// Create implements [Backend].
func (e Engine) Create(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	return mpool.Create(ctx, name, devices, o, e.Options)
}

// Activate implements [Backend]. Options.Admit and Options.OnEvent are set, if
// they are nil, to w's.
func (e Engine) Activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions, w Watch) (Pool, error) {
	if e.Options.Admit == nil {
		e.Options.Admit = w.Admit
	}
	if e.Options.OnEvent == nil {
		e.Options.OnEvent = w.Event
	}
	p, err := mpool.Activate(ctx, nameOrUUID, devices, o, e.Options)
	if err != nil {
		return nil, err
	}
	return enginePool{p}, nil
}

// enginePool is a pool of package mpool.
type enginePool struct{ *mpool.Pool }

// DriveCounters implements [Pool].
func (p enginePool) DriveCounters() []ioctl.DriveCounters {
	stats := p.DriveStats()
	list := make([]ioctl.DriveCounters, 0, len(stats))
	for path, s := range stats {
		list = append(list, ioctl.DriveCounters{
			Path: path, Reads: s.Reads, Writes: s.Writes, Flushes: s.Flushes, Discards: s.Discards,
			ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes, Errors: s.Errors, FlushFailures: s.FlushFailures,
		})
	}
	slices.SortFunc(list, func(a, b ioctl.DriveCounters) int { return strings.Compare(a.Path, b.Path) })
	return list
}
