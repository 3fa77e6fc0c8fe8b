package server

import (
	"errors"
	"iter"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

func listOpen(r *request, m *ioctl.ListOpen) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, false)
	if err != nil {
		return nil, err
	}
	if r.s.lists.Add(1) > maxLists {
		r.s.lists.Add(-1)
		return nil, api.Errorf(api.EAGAIN, "", "the session reads %d lists, as many as it may", maxLists)
	}
	l := &listRef{common: common{ref: p}, turn: newTurn(), open: &r.s.lists}
	// The iteration goes on in later requests: it lives with the session.
	l.next, l.stop = iter.Pull2(p.pool.pool.Objects(r.s.ctx, m.Filter))
	h, err := r.giveChild(kindList, l)
	if err != nil {
		return nil, err
	}
	return &ioctl.Opened{Handle: h}, nil
}

func listNext(r *request, m *ioctl.Target) (ioctl.Message, error) {
	l, err := use[*listRef](r, m.Handle, kindList)
	if err != nil {
		return nil, err
	}
	if err := l.turn.take(r.ctx); err != nil {
		return nil, err
	}
	defer l.turn.end()
	a := l.ref.pool
	x, err := r.access(a)
	if err != nil {
		return nil, err
	}
	reply := &ioctl.ListReply{}
	for visited := 1; len(reply.Objects) < ioctl.ObjectsPerPage; visited++ {
		info, err, ok := l.next()
		if !ok {
			return reply, nil
		}
		if err != nil {
			return nil, err
		}
		if info.State == api.StateCommitted || a.adopter(info.ID) == r.s {
			switch err := r.mayReach(a, &x, &info); {
			case err == nil:
				reply.Objects = append(reply.Objects, info)
			case !errors.Is(err, api.ENOENT):
				return nil, err
			}
		}
		if visited%1024 == 0 && r.ctx.Err() != nil {
			break // what there is, and more when it is asked for
		}
	}
	reply.More = true
	return reply, nil
}
