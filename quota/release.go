package quota

import (
	"context"
	"errors"
)

// Release ends a claim and all below it, and returns them, those below before those
// above. No limit refuses it. What is more than MaxSubtree claims ends in several steps,
// those below first, the claim itself last: with an error come those that were ended
// before it, and the same call goes on. Errors: ErrNotFound, unless it was done before
// under this request id: then there is nothing to return; ErrInvalid (request id).
func (l *Ledger) Release(ctx context.Context, f Ref, request string) ([]*Claim, error) {
	x := l.idleRelease.Swap(nil)
	if x == nil {
		x = &releasing{}
		x.f = x.view
	}
	x.try = try{l: l, by: x, f: x.f}
	x.ref = f
	list, err := x.do(ctx, request)
	*x = releasing{try: try{f: x.f}} // nothing of this call is kept
	l.idleRelease.Store(x)
	return list, err
}

func (x *releasing) do(ctx context.Context, request string) ([]*Claim, error) {
	if request != "" {
		var err error
		if x.req, err = newRequest(request, "release", x.ref.String()); err != nil {
			return nil, err
		}
	}
	for {
		if err := x.l.run(ctx, &x.try); err != nil {
			return x.before, err
		}
		if !x.more {
			break
		}
		x.before = append(x.before, x.list...)
	}
	if x.before != nil {
		return append(x.before, x.list...), nil
	}
	return x.list, nil
}

// releasing is one call of Release: one piece of memory, which is used again.
type releasing struct {
	try
	ref    Ref
	req    Request
	list   []*Claim // that this step ends
	more   bool     // and there are others to be ended after it
	before []*Claim // that steps before it have ended
	one    [1]Change
}

func (x *releasing) decide(r Reader) ([]Change, error) {
	x.list, x.more = nil, false
	if x.req.ID != "" {
		switch before, id, ok := r.Request(x.req.ID); {
		case ok && before == x.req:
			return nil, nil
		case ok:
			return nil, invalid("request id %q was used for something else, claim %v", x.req.ID, id)
		}
	}
	c, err := x.ref.find(r)
	if err != nil {
		return nil, err
	}
	if x.list = subtree(r, c); len(x.list) > MaxSubtree {
		x.list, x.more = x.list[:MaxSubtree:MaxSubtree], true
		return dropAll(nil, x.list, Request{}), nil
	}
	return dropAll(x.one[:0], x.list, x.req), nil
}

// Expire ends the reservations whose time is over and returns them, those below
// before those above. There may be more of them than one change ends: with an error
// come those that were ended before it.
func (l *Ledger) Expire(ctx context.Context) ([]*Claim, error) {
	var all []*Claim
	for {
		var list []*Claim
		err := l.change(ctx, func(r Reader) ([]Change, error) {
			if list = expired(r, l.opt.Now()); len(list) == 0 {
				return nil, errNothing
			}
			return dropAll(nil, list, Request{}), nil
		})
		switch {
		case errors.Is(err, errNothing):
			return all, nil
		case err != nil:
			return all, err
		}
		all = append(all, list...)
		if len(list) < MaxSubtree {
			return all, nil
		}
	}
}

// Transfer gives a claim to another owner, and all below it that has the same owner
// now. The new owner and those above it that were not above the old one are checked.
// Errors: ErrExceeded, ErrNotFound, ErrExpired, ErrInvalid (also of
// MaxSubtree claims and more).
func (l *Ledger) Transfer(ctx context.Context, f Ref, owner, request string) (*Claim, error) {
	req, err := newRequest(request, "transfer", f.String(), owner)
	if err != nil {
		return nil, err
	}
	var result *Claim
	err = l.change(ctx, func(r Reader) ([]Change, error) {
		if done, err := repeated(r, req, &result); done || err != nil {
			return nil, err
		}
		c, err := f.find(r)
		switch {
		case err != nil:
			return nil, err
		case isExpired(r, c, l.opt.Now()):
			return nil, faultf(ErrExpired, "reservation %v ended at %v", c.ID, c.Expires)
		}
		changes, err := withOwner(r, owner, nil)
		if err != nil {
			return nil, err
		}
		list := subtree(r, c)
		var moved []Amount
		for _, x := range list {
			if x.Owner != c.Owner {
				continue
			}
			y := *x
			y.Owner = owner
			if x == c {
				y.remember(req)
				result = &y
			}
			moved = append(moved, x.Amounts...)
			changes = append(changes, PutClaim{&y})
		}
		if len(changes) > MaxSubtree {
			return nil, invalid("claim %v and those below it are %d of owner %q: at most %d change their owner at once; transfer some below it first",
				c.ID, len(changes), c.Owner, MaxSubtree)
		}
		if moved, err = addUp(moved); err != nil {
			return nil, err
		}
		return changes, check(r, owner, common(r, owner, c.Owner), moved)
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// isAbove says whether an owner is the other one, or above it.
func isAbove(r Reader, owner, other string) bool {
	for other != "" {
		if other == owner {
			return true
		}
		o, _ := r.Owner(other) // one that is not there yet comes below the root
		other = o.Parent
	}
	return false
}

// common returns the lowest owner that is both of them or above: it, and what is
// above it, holds as much after a transfer between the two as before.
func common(r Reader, owner, other string) string {
	for owner != "" && !isAbove(r, owner, other) {
		o, _ := r.Owner(owner)
		owner = o.Parent
	}
	return owner
}
