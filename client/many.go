package client

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// holder is what mblocks and mlogs of this package have in common.
type holder interface {
	held() *object
	// sound refuses a commit of what should not be committed.
	sound(op ioctl.Op) error
}

func (o *object) held() *object           { return o }
func (o *object) sound(op ioctl.Op) error { return o.live(op) }

// CommitMany implements [api.Pool].
func (p *pool) CommitMany(ctx context.Context, objects []api.Object, roots []api.Root) error {
	const op = ioctl.OpCommitMany
	held := make([]*object, len(objects))
	handles := make([]ioctl.Handle, len(objects))
	for i, o := range objects {
		if m, ok := o.(*cachedMblock); ok && m.p.c == p.c {
			var err error
			if o, err = m.open(ctx, op); err != nil {
				return err
			}
		}
		x, ok := o.(holder)
		if !ok || x.held().p.c != p.c {
			return api.Errorf(api.EINVAL, op.Name(), "object %d is not of this connection", i)
		}
		if err := x.sound(op); err != nil {
			return err
		}
		held[i] = x.held()
		handles[i] = held[i].h
	}
	b, err := encodeRoots(op, roots)
	if err != nil {
		return err
	}
	var on *link
	err = p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		on = l
		for _, o := range held {
			if o.l != l {
				return stale(op)
			}
		}
		m := &ioctl.CommitMany{Pool: h, Objects: handles}
		return l.carry(ctx, op, m, b, &m.Roots, &ioctl.Empty{})
	})
	if lostIn(err) != nil {
		return p.outcomeMany(ctx, op, on, err, held, roots)
	}
	return err
}

// SetRoots implements [api.Pool].
func (p *pool) SetRoots(ctx context.Context, roots []api.Root) error {
	const op = ioctl.OpRootsSet
	b, err := encodeRoots(op, roots)
	if err != nil {
		return err
	}
	var on *link
	err = p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		on = l
		m := &ioctl.RootsSet{Pool: h}
		return l.carry(ctx, op, m, b, &m.Roots, &ioctl.Empty{})
	})
	if lostIn(err) != nil {
		return p.outcomeMany(ctx, op, on, err, nil, roots)
	}
	return err
}

func encodeRoots(op ioctl.Op, roots []api.Root) ([]byte, error) {
	if len(roots) == 0 {
		return nil, nil
	}
	b, err := ioctl.AppendRoots(nil, roots)
	if err != nil {
		return nil, &api.Error{Code: api.EINVAL, Op: op.Name(), Err: err}
	}
	return b, nil
}

// Roots implements [api.Pool].
func (p *pool) Roots(ctx context.Context) (roots []api.Root, err error) {
	err = p.run(ctx, ioctl.OpRootsList, again, func(l *link, h ioctl.Handle) error {
		roots, err = rootsOn(ctx, l, h)
		return err
	})
	return roots, err
}

// rootsOn returns a pool's roots.
func rootsOn(ctx context.Context, l *link, pool ioctl.Handle) ([]api.Root, error) {
	var roots []api.Root
	for ask := (&ioctl.RootsList{Pool: pool}); ; {
		reply := &ioctl.RootsReply{}
		if err := l.do(ctx, ioctl.OpRootsList, ask, reply); err != nil {
			return nil, err
		}
		roots = append(roots, reply.Roots...)
		if !reply.More || len(reply.Roots) == 0 {
			return roots, nil
		}
		ask.After = roots[len(roots)-1].Name
	}
}
