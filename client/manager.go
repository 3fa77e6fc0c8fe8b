package client

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

var (
	_ api.Manager   = (*Conn)(nil)
	_ api.Pool      = (*pool)(nil)
	_ api.Mblock    = (*mblock)(nil)
	_ api.Mlog      = (*mlog)(nil)
	_ api.Appender  = (*appender)(nil)
	_ api.LogReader = (*reader)(nil)
	_ api.MDC       = (*mdc)(nil)
)

// CreatePool implements [api.Manager].
func (c *Conn) CreatePool(ctx context.Context, name string, devices []string, o api.CreateOptions) (api.CreateResult, error) {
	reply := &ioctl.PoolCreateReply{}
	err := c.change(ctx, ioctl.OpPoolCreate, &ioctl.PoolCreate{Name: name, Devices: devices, Options: o}, reply)
	return reply.Result, err
}

// ActivatePool implements [api.Manager].
func (c *Conn) ActivatePool(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (info api.PoolInfo, err error) {
	reply := &ioctl.PoolReply{}
	err = c.change(ctx, ioctl.OpPoolActivate, &ioctl.PoolActivate{Name: nameOrUUID, Devices: devices, Options: o}, reply)
	if err != nil || !reply.More {
		return reply.Info, err
	}
	err = c.run(ctx, ioctl.OpPoolShow, again, func(l *link) error {
		info, err = l.show(ctx, ioctl.PoolShow{Name: reply.Info.Name})
		return err
	})
	return info, err
}

// show returns a pool's description, with all its drives.
func (l *link) show(ctx context.Context, ask ioctl.PoolShow) (api.PoolInfo, error) {
	var info api.PoolInfo
	for {
		ask.FirstDrive = uint32(len(info.Drives))
		reply := &ioctl.PoolReply{}
		if err := l.do(ctx, ioctl.OpPoolShow, &ask, reply); err != nil {
			return api.PoolInfo{}, err
		}
		if ask.FirstDrive == 0 {
			info = reply.Info
		} else {
			info.Drives = append(info.Drives, reply.Info.Drives...)
		}
		if !reply.More || len(reply.Info.Drives) == 0 {
			return info, nil
		}
	}
}

// DeactivatePool implements [api.Manager].
func (c *Conn) DeactivatePool(ctx context.Context, name string) error {
	return c.change(ctx, ioctl.OpPoolDeactivate, &ioctl.PoolName{Name: name}, &ioctl.Empty{})
}

// DestroyPool implements [api.Manager].
func (c *Conn) DestroyPool(ctx context.Context, name string) error {
	return c.change(ctx, ioctl.OpPoolDestroy, &ioctl.PoolName{Name: name}, &ioctl.Empty{})
}

// RenamePool implements [api.Manager].
func (c *Conn) RenamePool(ctx context.Context, name, newName string) error {
	return c.change(ctx, ioctl.OpPoolRename, &ioctl.PoolRename{Name: name, NewName: newName}, &ioctl.Empty{})
}

// ScrubPool does one step of a scrub of an active pool, for administrators: it
// reads and verifies what comes next after the cursor, about as many bytes as are
// given (1 to [api.MaxScrubStep]), at low priority. From the zero cursor until a
// step says Done everything in the pool is verified; the caller paces the steps and
// keeps the cursor, which stays good when the daemon or the caller ends. Errors:
// ENOENT (no such pool), EPERM, EINVAL, EBADF (the pool is being deactivated).
func (c *Conn) ScrubPool(ctx context.Context, name string, from api.ScrubCursor, bytes int64) (api.ScrubStep, error) {
	reply := &ioctl.PoolScrubReply{}
	err := c.run(ctx, ioctl.OpPoolScrub, again, func(l *link) error {
		return l.do(ctx, ioctl.OpPoolScrub, &ioctl.PoolScrub{Name: name, From: from, Bytes: bytes}, reply)
	})
	return reply.Step, err
}

// SetPool implements [api.Manager].
func (c *Conn) SetPool(ctx context.Context, name string, s api.PoolSettings) error {
	return c.change(ctx, ioctl.OpPoolSet, &ioctl.PoolSet{Name: name, Settings: s}, &ioctl.Empty{})
}

// names returns the names of the active pools that the caller may open.
func (l *link) names(ctx context.Context) ([]string, error) {
	var names []string
	ask := &ioctl.PoolName{}
	for {
		reply := &ioctl.PoolListReply{}
		if err := l.do(ctx, ioctl.OpPoolList, ask, reply); err != nil {
			return nil, err
		}
		names = append(names, reply.Names...)
		if !reply.More || len(reply.Names) == 0 {
			return names, nil
		}
		ask.Name = names[len(names)-1]
	}
}

// Pools implements [api.Manager]: the pools that the caller may open.
func (c *Conn) Pools(ctx context.Context) (infos []api.PoolInfo, err error) {
	err = c.run(ctx, ioctl.OpPoolList, again, func(l *link) error {
		names, err := l.names(ctx)
		if err != nil {
			return err
		}
		infos = make([]api.PoolInfo, 0, len(names))
		for _, name := range names {
			info, err := l.show(ctx, ioctl.PoolShow{Name: name})
			if errors.Is(err, api.ENOENT) {
				continue // deactivated meanwhile
			}
			if err != nil {
				return err
			}
			infos = append(infos, info)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// OpenPool opens an active pool. Errors: ENOENT, EPERM.
func (c *Conn) OpenPool(ctx context.Context, name string) (api.Pool, error) {
	const op = ioctl.OpPoolOpen
	var p *pool
	err := c.run(ctx, op, again, func(l *link) error {
		reply := &ioctl.Opened{}
		err := l.do(ctx, op, &ioctl.PoolName{Name: name}, reply)
		if err == nil {
			p, err = newPool(ctx, c, l, reply.Handle)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Version says what the daemon is.
type Version = ioctl.VersionReply

// Version asks the daemon what it is.
func (c *Conn) Version(ctx context.Context) (Version, error) {
	return ask[Version](ctx, c, ioctl.OpVersion, &ioctl.Empty{})
}

type (
	// OpCounters counts one operation.
	OpCounters = ioctl.OpCounters
	// DriveCounters counts one drive.
	DriveCounters = ioctl.DriveCounters
	// Stats counts one pool, or all the daemon did. Its NextOp and NextDrive
	// are 0.
	Stats = ioctl.StatReply
)

// Stat returns the counters of a pool, or, with "", the daemon's.
func (c *Conn) Stat(ctx context.Context, pool string) (all Stats, err error) {
	err = c.run(ctx, ioctl.OpStat, again, func(l *link) error {
		all, err = l.stat(ctx, pool)
		return err
	})
	return all, err
}

func (l *link) stat(ctx context.Context, pool string) (Stats, error) {
	var all Stats
	ask := &ioctl.StatAsk{Pool: pool}
	for {
		var part Stats
		if err := l.do(ctx, ioctl.OpStat, ask, &part); err != nil {
			return Stats{}, err
		}
		ops, drives := append(all.Ops, part.Ops...), append(all.Drives, part.Drives...)
		ask.FirstOp, ask.FirstDrive = part.NextOp, part.NextDrive
		all = part
		all.Ops, all.Drives, all.NextOp, all.NextDrive = ops, drives, 0, 0
		switch {
		case ask.FirstOp != 0:
		case ask.FirstDrive != 0:
			ask.FirstOp = ioctl.NumOps // they are all there
		default:
			return all, nil
		}
	}
}
