package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// creditList answers with a page of the credits that the session may see: all to
// administrators, to others those of their user.
func creditList(r *request, m *ioctl.CreditList) (ioctl.Message, error) {
	a, err := r.visible(m.Pool)
	if err != nil {
		return nil, err
	}
	c := a.credits
	list := slices.DeleteFunc(c.root.Resources(), func(x credit.Resource) bool {
		return x.Type != credit.Access || layout.ObjectID(x.ID) < m.After.Object
	})
	slices.SortFunc(list, func(x, y credit.Resource) int { return cmp.Compare(x.ID, y.ID) })
	reply := &ioctl.CreditsReply{}
	for _, x := range list {
		for _, i := range c.list(r.s, x) {
			if compareCursors(i.CreditCursor, m.After) <= 0 {
				continue
			}
			if len(reply.Credits) == ioctl.CreditsPerPage {
				reply.More = true
				return reply, nil
			}
			reply.Credits = append(reply.Credits, i)
		}
		if r.ctx.Err() != nil {
			return nil, api.ContextError("", context.Cause(r.ctx))
		}
	}
	return reply, nil
}

func compareCursors(x, y ioctl.CreditCursor) int {
	return cmp.Or(cmp.Compare(x.Object, y.Object), cmp.Compare(x.Holder, y.Holder), cmp.Compare(x.First, y.First))
}

// list returns the credits on one object that a session may see, in their order.
func (c *creditor) list(s *session, x credit.Resource) []ioctl.CreditInfo {
	var list []ioctl.CreditInfo
	for _, l := range c.root.Loans(x) {
		by := c.srv.sessionOf(l.Group)
		if by == nil || !s.peer.admin && by.peer.uid != s.peer.uid {
			continue // or it has just ended, or nobody's: a revocation
		}
		i := ioctl.CreditInfo{
			CreditCursor: ioctl.CreditCursor{Object: layout.ObjectID(x.ID), Holder: l.Number},
			Session:      by.id, PID: by.peer.pid, UID: by.peer.uid, Token: l.Token,
		}
		switch {
		case l.Waits:
			i.State = ioctl.CreditWaiting
		case l.Recalled:
			i.State = ioctl.CreditCalledBack
		case l.Debtor == 0:
			i.State = ioctl.CreditHeld
		default:
			i.State = ioctl.CreditGranted
		}
		if l.Debtor != 0 && !l.Waits {
			i.Holder = uint64(l.Debtor)
		}
		if l.Left > 0 {
			i.Expires = c.srv.clock.Now().Add(l.Left).UTC()
		}
		for _, span := range l.Credit {
			i.First, i.End, i.Modes = span.First, span.End, span.Modes
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(x, y ioctl.CreditInfo) int { return compareCursors(x.CreditCursor, y.CreditCursor) })
	return list
}

// creditRevoke calls back all credits on an object, waits until they are given back,
// and takes them at the deadline of call-backs.
func creditRevoke(r *request, m *ioctl.Find) (ioctl.Message, error) {
	p, err := usePool(r, m.Pool, true)
	if err != nil {
		return nil, err
	}
	c := p.pool.credits
	if _, err := c.pool.pool.Describe(r.ctx, m.ID); err != nil {
		return nil, err
	}
	if err := r.mustReach(p.pool, m.ID); err != nil {
		return nil, err
	}
	if err := c.watch(m.ID); err != nil {
		return nil, err
	}
	defer c.unpin(m.ID)
	if !r.s.peer.admin {
		for _, l := range c.root.Loans(objectOf(m.ID)) {
			if by := c.srv.sessionOf(l.Group); by != nil && by.peer.uid != r.s.peer.uid {
				return nil, api.Errorf(api.EPERM, "", "other users have credits on the object: an administrator may revoke them")
			}
		}
	}
	hold, err := c.root.Acquire(r.ctx, credit.Request{
		Resource: objectOf(m.ID), Credit: wholeOf(credit.Delete), Flags: credit.MayBorrow | credit.MayRevoke,
	})
	if err != nil {
		if r.ctx.Err() != nil {
			err = context.Cause(r.ctx)
		}
		return nil, api.ContextError("", err)
	}
	c.srv.tellEvent(c.event(r.s, m.ID, fmt.Sprintf("user %d had all credits on the object called back", r.s.peer.uid)))
	return &ioctl.Empty{}, hold.Release(credit.Version{})
}
