package client

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// openMblock opens an mblock under a read credit. Where that is not to be had at
// once, or the mblock is not committed, the daemon alone says who may.
func (p *pool) openMblock(ctx context.Context, id layout.ObjectID) (api.Mblock, error) {
	const op = ioctl.OpMblockFind
	if err := p.live(op); err != nil {
		return nil, err
	}
	var m api.Mblock
	err := p.c.run(ctx, op, again, func(l *link) error {
		h, err := p.onLink(ctx, op, l)
		if err != nil {
			return err
		}
		m, err = p.openOnCredit(ctx, l, h, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// openOnCredit is openMblock on one connection, where h is the pool.
func (p *pool) openOnCredit(ctx context.Context, l *link, h ioctl.Handle, id layout.ObjectID) (api.Mblock, error) {
	hold := p.readCredit(ctx, l, h, id)
	if hold != nil {
		if b, ok := hold.c.learned(id, hold.Version()); ok {
			return newCached(p, l, hold, b), nil
		}
	}
	m, err := p.findOn(ctx, l, h, id)
	switch {
	case err != nil:
		release(hold)
		return nil, err
	case hold == nil:
		return m, nil
	}
	b, ok := m.birthUnder(ctx, hold)
	if !ok {
		release(hold)
		return m, nil
	}
	hold.c.learn(id, b)
	x := newCached(p, l, hold, b)
	x.inner.Store(m)
	return x, nil
}

// readCredit returns a read credit on an object; nil: it is not to be had at once.
func (p *pool) readCredit(ctx context.Context, l *link, h ioctl.Handle, id layout.ObjectID) *Hold {
	c, err := l.creditsOf(p, h)
	if err != nil {
		return nil
	}
	hold, err := c.acquireFor(ctx, id, CreditRequest{Modes: CreditRead, Try: true, Local: true}, true)
	if errors.Is(err, api.EAGAIN) {
		soon, cancel := context.WithTimeout(ctx, creditPatience)
		defer cancel()
		hold, err = c.acquireFor(soon, id, CreditRequest{Modes: CreditRead, Try: true}, true)
	}
	if err != nil {
		return nil
	}
	return hold
}

// birthUnder returns what does not change of the mblock as long as the credit is for
// the same version; false: it is not committed, or has no version, or the credit was
// taken meanwhile.
func (m *mblock) birthUnder(ctx context.Context, hold *Hold) (birth, bool) {
	b := birth{version: hold.Version(), created: m.created}
	if b.version == (birth{}).version || b.created.IsZero() {
		return birth{}, false
	}
	info := &ioctl.ObjectReply{}
	err := m.l.do(ctx, ioctl.OpObjectInfo, &ioctl.Target{Handle: m.h}, info)
	b.length = info.Info.Length
	return b, err == nil && info.Info.State == api.StateCommitted && hold.Valid()
}

func release(h *Hold) {
	if h != nil {
		_ = h.Release() //nolint:errcheck // it may have been lost; nothing was done under it
	}
}

// findOn gives a handle on an mblock on a connection.
func (p *pool) findOn(ctx context.Context, l *link, h ioctl.Handle, id layout.ObjectID) (*mblock, error) {
	o := &opened{l: l, p: p}
	if err := l.do(ctx, ioctl.OpMblockFind, &ioctl.Find{Pool: h, ID: id}, &o.Opened); err != nil {
		return nil, err
	}
	return o.mblock(), nil
}

func newCached(p *pool, l *link, hold *Hold, b birth) *cachedMblock {
	m := &cachedMblock{p: p, l: l, c: hold.c, hold: hold, id: hold.k.id, birth: b, opening: make(chan struct{}, 1)}
	m.pins.Store(1)
	return m
}
