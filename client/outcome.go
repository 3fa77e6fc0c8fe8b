package client

import (
	"context"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// undone is the error of a request that was lost and is known not to have been
// done.
func undone(op ioctl.Op, detail string) error {
	return &api.Error{Code: api.ECONNRESET, Op: op.Name(), Detail: "the connection broke before it was done; " + detail}
}

// errAbsent is why an object is not found: it is not there, or its id names
// another object.
var errAbsent = errors.New("the object is not there")

// errLeaving is why a look did not tell what became of a request: a delete of the
// object is under way, which may fail, or be undone by the daemon's end.
var errLeaving = errors.New("a delete of the object is under way")

// findOn gives a handle, on another connection, on the same object. Without it:
// errAbsent, or errLeaving.
func (o *object) findOn(ctx context.Context, l *link, pool ioctl.Handle) (*ioctl.Opened, error) {
	reply := &ioctl.Opened{}
	err := l.do(ctx, findOp(o.id), &ioctl.Find{Pool: pool, ID: o.id}, reply)
	switch {
	case errors.Is(err, api.ENOENT):
		if e, ok := errors.AsType[*api.Error](err); ok && len(e.Holders) > 0 {
			return nil, errLeaving
		}
		return nil, errAbsent
	case err != nil:
		return nil, err
	case !o.created.IsZero() && reply.Created.Equal(o.created):
		return reply, nil
	}
	l.putBack(ctx, reply.Handle)
	if reply.Created.IsZero() || o.created.IsZero() {
		return nil, errUnclear
	}
	return nil, errAbsent // the id was given again
}

// refind is findOn for a request that is made again: EBADF if the object is
// absent.
func (o *object) refind(ctx context.Context, op ioctl.Op, l *link, pool ioctl.Handle) (*ioctl.Opened, error) {
	reply, err := o.findOn(ctx, l, pool)
	if errors.Is(err, errAbsent) || errors.Is(err, errLeaving) || errors.Is(err, errUnclear) {
		err = stale(op)
	}
	return reply, err
}

func findOp(id layout.ObjectID) ioctl.Op {
	if id.Kind() == layout.KindMlog {
		return ioctl.OpMlogFind
	}
	return ioctl.OpMblockFind
}

// elsewhere makes a request again, which was lost and changes nothing, on a
// handle of another connection on the same object. The handle is f's to use
// only.
func (o *object) elsewhere(ctx context.Context, op ioctl.Op, lost error, f func(h *handle) error) error {
	if o.created.IsZero() {
		return lost
	}
	return o.p.run(ctx, op, again, func(l *link, pool ioctl.Handle) error {
		reply, err := o.refind(ctx, op, l, pool)
		if err != nil {
			return err
		}
		defer l.putBack(ctx, reply.Handle)
		return f(&handle{l: l, h: reply.Handle})
	})
}

// outcome finds out what became of a request about the object whose answer was
// lost: it returns there if the object is there, committed, and absent if it is
// not; EUNKNOWN if it cannot be found out.
func (o *object) outcome(ctx context.Context, op ioctl.Op, lost, there, absent error) error {
	return o.p.look(ctx, op, o.l, lost, func(l *link, pool ioctl.Handle) (error, error) {
		is, err := o.isThere(ctx, l, pool)
		switch {
		case err != nil:
			return nil, err
		case is:
			return there, nil
		}
		return absent, nil
	})
}

// errUnclear is why a look did not tell what became of a request.
var errUnclear = errors.New("what is there now may be its work or others'")

// isThere says whether the object is there, committed, when no delete of it is under
// way any more.
func (o *object) isThere(ctx context.Context, l *link, pool ioctl.Handle) (bool, error) {
	if o.created.IsZero() {
		return false, errUnclear
	}
	var reply *ioctl.Opened
	err := patiently(ctx, findOp(o.id), errLeaving, func() (err error) {
		reply, err = o.findOn(ctx, l, pool)
		return err
	})
	switch {
	case errors.Is(err, errAbsent):
		return false, settled(ctx, l, pool)
	case err != nil:
		return false, err
	}
	l.putBack(ctx, reply.Handle)
	return true, nil
}

// settled returns nil if what is not there now will not be there after the next
// activation: of a pool whose metadata failed that is not known.
func settled(ctx context.Context, l *link, pool ioctl.Handle) error {
	info, err := l.show(ctx, ioctl.PoolShow{Pool: pool})
	if err == nil && info.State == "read-only" {
		err = errReadOnly
	}
	return err
}

// errReadOnly is why a look did not tell what became of a request.
var errReadOnly = errors.New("the pool turned read-only: its next activation decides")

// look finds out, on another connection, what became of a request that was lost
// on old. f looks, and returns the request's outcome, or why that is not to be
// seen.
func (p *pool) look(ctx context.Context, op ioctl.Op, old *link, lost error,
	f func(l *link, pool ioctl.Handle) (outcome, err error),
) error {
	var outcome error
	err := p.run(ctx, op, again, func(l *link, pool ioctl.Handle) (err error) {
		if err := l.outlive(ctx, old); err != nil {
			return err
		}
		outcome, err = f(l, pool)
		return err
	})
	if err != nil {
		return unknown(op, errors.Join(lost, err))
	}
	return outcome
}

// How long is waited for the end of what others have under way.
const (
	lookPatience = 2 * time.Second
	firstLook    = 5 * time.Millisecond
	lastLook     = 100 * time.Millisecond
)

// Why a look did not tell what became of a request.
var (
	errStillRuns = errors.New("the daemon has not ended the old connection's session yet")
	errHidden    = errors.New("the old connection's session is another user's, which this process was")
)

// outlive returns when nothing of an older connection's session is under way
// any more: at once if that was with a daemon that is gone.
func (l *link) outlive(ctx context.Context, old *link) error {
	if l.limits.Instance != old.limits.Instance {
		return nil
	}
	was := old.limits.Session
	switch {
	case was == 0:
		return errStillRuns
	case l.uid != old.uid:
		return errHidden
	}
	return patiently(ctx, ioctl.OpClientList, errStillRuns, func() error {
		reply := &ioctl.ClientsReply{}
		err := l.do(ctx, ioctl.OpClientList, &ioctl.ClientList{After: was - 1}, reply)
		if err == nil && len(reply.Clients) > 0 && reply.Clients[0].Session == was {
			return errStillRuns
		}
		return err
	})
}

// patiently looks again and again while look returns the error yet, for a while.
func patiently(ctx context.Context, op ioctl.Op, yet error, look func() error) error {
	patience, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		err := look()
		if !errors.Is(err, yet) {
			return err
		}
		if pause(patience, wait) == nil {
			continue
		}
		if ctx.Err() != nil {
			return expired(ctx, op.Name())
		}
		return err
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// outcomeMany finds out what became of a lost commit of many objects, and of
// roots with them: if none is there it was not done.
func (p *pool) outcomeMany(ctx context.Context, op ioctl.Op, old *link, lost error, objects []*object, roots []api.Root) error {
	return p.look(ctx, op, old, lost, func(l *link, pool ioctl.Handle) (error, error) {
		there := 0
		for _, o := range objects {
			is, err := o.isThere(ctx, l, pool)
			if err != nil {
				return nil, err
			}
			if is {
				there++
			}
		}
		if there == 0 && len(objects) > 0 {
			return undone(op, "nothing is committed and the uncommitted objects are gone"), nil
		}
		if there < len(objects) {
			return nil, errUnclear
		}
		return nil, rootsAre(ctx, l, pool, roots)
	})
}

// rootsAre returns nil if the roots are as asked for.
func rootsAre(ctx context.Context, l *link, pool ioctl.Handle, roots []api.Root) error {
	if len(roots) == 0 {
		return nil
	}
	list, err := rootsOn(ctx, l, pool)
	if err != nil {
		return err
	}
	have := make(map[string]layout.ObjectID, len(list))
	for _, r := range list {
		have[r.Name] = r.ID
	}
	for _, r := range roots {
		if have[r.Name] != r.ID {
			return errUnclear
		}
	}
	return nil
}
