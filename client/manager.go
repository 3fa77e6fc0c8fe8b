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
	err := c.do(ctx, ioctl.OpPoolCreate, &ioctl.PoolCreate{Name: name, Devices: devices, Options: o}, reply)
	return reply.Result, err
}

// ActivatePool implements [api.Manager].
func (c *Conn) ActivatePool(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions) (api.PoolInfo, error) {
	reply := &ioctl.PoolReply{}
	err := c.do(ctx, ioctl.OpPoolActivate, &ioctl.PoolActivate{Name: nameOrUUID, Devices: devices, Options: o}, reply)
	if err != nil {
		return api.PoolInfo{}, err
	}
	return c.allDrives(ctx, reply, ioctl.PoolShow{Name: reply.Info.Name})
}

// allDrives completes a pool's description with the drives that had no room in
// the first message.
func (c *Conn) allDrives(ctx context.Context, first *ioctl.PoolReply, ask ioctl.PoolShow) (api.PoolInfo, error) {
	info := first.Info
	for more := first.More; more; {
		ask.FirstDrive = uint32(len(info.Drives))
		reply := &ioctl.PoolReply{}
		if err := c.do(ctx, ioctl.OpPoolShow, &ask, reply); err != nil {
			return api.PoolInfo{}, err
		}
		info.Drives = append(info.Drives, reply.Info.Drives...)
		more = reply.More && len(reply.Info.Drives) > 0
	}
	return info, nil
}

func (c *Conn) show(ctx context.Context, ask ioctl.PoolShow) (api.PoolInfo, error) {
	reply := &ioctl.PoolReply{}
	if err := c.do(ctx, ioctl.OpPoolShow, &ask, reply); err != nil {
		return api.PoolInfo{}, err
	}
	return c.allDrives(ctx, reply, ask)
}

// DeactivatePool implements [api.Manager].
func (c *Conn) DeactivatePool(ctx context.Context, name string) error {
	return c.do(ctx, ioctl.OpPoolDeactivate, &ioctl.PoolName{Name: name}, &ioctl.Empty{})
}

// DestroyPool implements [api.Manager].
func (c *Conn) DestroyPool(ctx context.Context, name string) error {
	return c.do(ctx, ioctl.OpPoolDestroy, &ioctl.PoolName{Name: name}, &ioctl.Empty{})
}

// RenamePool implements [api.Manager].
func (c *Conn) RenamePool(ctx context.Context, name, newName string) error {
	return c.do(ctx, ioctl.OpPoolRename, &ioctl.PoolRename{Name: name, NewName: newName}, &ioctl.Empty{})
}

// SetPool implements [api.Manager].
func (c *Conn) SetPool(ctx context.Context, name string, s api.PoolSettings) error {
	return c.do(ctx, ioctl.OpPoolSet, &ioctl.PoolSet{Name: name, Settings: s}, &ioctl.Empty{})
}

// names returns the names of the active pools that the caller may open.
func (c *Conn) names(ctx context.Context) ([]string, error) {
	var names []string
	ask := &ioctl.PoolName{}
	for {
		reply := &ioctl.PoolListReply{}
		if err := c.do(ctx, ioctl.OpPoolList, ask, reply); err != nil {
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
func (c *Conn) Pools(ctx context.Context) ([]api.PoolInfo, error) {
	names, err := c.names(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]api.PoolInfo, 0, len(names))
	for _, name := range names {
		info, err := c.show(ctx, ioctl.PoolShow{Name: name})
		if errors.Is(err, api.ENOENT) {
			continue // deactivated meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// OpenPool opens an active pool. Errors: ENOENT, EPERM.
func (c *Conn) OpenPool(ctx context.Context, name string) (api.Pool, error) {
	reply := &ioctl.Opened{}
	if err := c.do(ctx, ioctl.OpPoolOpen, &ioctl.PoolName{Name: name}, reply); err != nil {
		return nil, err
	}
	return &pool{handle{c: c, h: reply.Handle}}, nil
}

// Version says what the daemon is.
type Version = ioctl.VersionReply

// Version asks the daemon what it is.
func (c *Conn) Version(ctx context.Context) (Version, error) {
	var v Version
	err := c.do(ctx, ioctl.OpVersion, &ioctl.Empty{}, &v)
	return v, err
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
func (c *Conn) Stat(ctx context.Context, pool string) (Stats, error) {
	var all Stats
	ask := &ioctl.StatAsk{Pool: pool}
	for {
		var part Stats
		if err := c.do(ctx, ioctl.OpStat, ask, &part); err != nil {
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
