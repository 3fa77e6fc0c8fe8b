package quota

import (
	"context"
	"fmt"
)

// Origin says where a limit comes from.
type Origin uint8

// The origins.
const (
	FromDefault Origin = iota // the class's default
	FromOwner                 // set for the owner
	FromTotal                 // the class's total
)

func (o Origin) String() string {
	switch o {
	case FromDefault:
		return "default"
	case FromOwner:
		return "owner"
	case FromTotal:
		return "total"
	default:
		return "unknown"
	}
}

// Usage is what an owner, with all below it, has of a class.
type Usage struct {
	Class  string
	Owner  string // "": all together
	Sum    Sum
	Limit  Limit
	Origin Origin
}

// Define defines a class, or defines it anew: claims stay as they are, whatever it
// says. The unit of a class stays, and so does where it is kept. Errors: ErrInvalid.
func (l *Ledger) Define(ctx context.Context, c Class) error {
	if err := c.validate(); err != nil {
		return err
	}
	var overs []Over
	err := l.change(ctx, func(r Reader) ([]Change, error) {
		overs = overs[:0]
		old, ok := r.Class(c.Name)
		switch {
		case !ok:
			return []Change{PutClass{c}}, nil
		case old.Unit != c.Unit || old.External != c.External:
			return nil, invalid("class %s counts %v, and will: its unit cannot be changed", c.Name, old.Unit)
		}
		overs = lowered(overs, r, c.Name, "", old.Total, c.Total)
		for _, o := range r.Owners() {
			if _, own := r.Limit(o.Name, c.Name); !own {
				overs = lowered(overs, r, c.Name, o.Name, old.Default, c.Default)
			}
		}
		return []Change{PutClass{c}}, nil
	})
	return l.tell(err, overs)
}

// lowered adds who is over a limit that was lowered, or set as it was: the call may be
// repeated because its outcome was unknown.
func lowered(list []Over, r Reader, class, owner string, from, to Limit) []Over {
	used := r.Used(owner, class).Total()
	if to == Unlimited || from != Unlimited && to > from || used <= int64(to) {
		return list
	}
	return append(list, Over{Class: class, Owner: owner, Used: used, Limit: to})
}

func (l *Ledger) tell(err error, overs []Over) error {
	if err == nil {
		for _, o := range overs {
			l.opt.OnOver(o)
		}
	}
	return err
}

// RemoveClass removes a class of which nothing is claimed, with the limits that are
// set for it. Errors: ErrNotFound, ErrInUse, ErrInvalid (it is kept elsewhere).
func (l *Ledger) RemoveClass(ctx context.Context, name string) error {
	return l.change(ctx, func(r Reader) ([]Change, error) {
		c, ok := r.Class(name)
		switch {
		case !ok:
			return nil, noClass(name)
		case c.External:
			return nil, invalid("class %s is built in", name)
		}
		if n := r.Used("", name).Total(); n > 0 {
			return nil, faultf(ErrInUse, "class %s: %d of it are claimed", name, n)
		}
		var changes []Change
		for _, x := range r.Limits() {
			if x.Class == name {
				changes = append(changes, DropLimit{Owner: x.Owner, Class: name})
			}
		}
		return append(changes, DropClass{name}), nil
	})
}

// Classes returns all classes, sorted by name.
func (l *Ledger) Classes(ctx context.Context) (list []Class, err error) {
	err = l.store.View(ctx, func(r Reader) { list = r.Classes() })
	return list, err
}

// AddOwner adds an owner below another, or at the top. An owner that is named in a
// claim or a limit without having been added is at the top. Errors: ErrExists,
// ErrNotFound (the parent), ErrInvalid.
func (l *Ledger) AddOwner(ctx context.Context, o Owner) error {
	return l.change(ctx, func(r Reader) ([]Change, error) {
		if _, ok := r.Owner(o.Name); ok {
			return nil, faultf(ErrExists, "owner %q is there already", o.Name)
		}
		depth := 1
		for p := o.Parent; p != ""; depth++ {
			above, ok := r.Owner(p)
			if !ok {
				return nil, faultf(ErrNotFound, "no owner %q to be above %q", p, o.Name)
			}
			p = above.Parent
		}
		if depth > MaxDepth-1 {
			return nil, invalid("owner %q: it would be the %d-th below one another: at most %d", o.Name, depth, MaxDepth-1)
		}
		if err := validOwner(o.Name); err != nil {
			return nil, err
		}
		return []Change{PutOwner{o}}, nil
	})
}

// Owners returns all owners, sorted by name.
func (l *Ledger) Owners(ctx context.Context) (list []Owner, err error) {
	err = l.store.View(ctx, func(r Reader) { list = r.Owners() })
	return list, err
}

// SetLimit sets an owner's limit for a class, also one below what it holds. Errors:
// ErrNotFound (the class), ErrInvalid.
func (l *Ledger) SetLimit(ctx context.Context, x OwnerLimit) error {
	if x.Limit < Unlimited {
		return invalid("limit %d: want 0 or more, or unlimited", x.Limit)
	}
	var overs []Over
	err := l.change(ctx, func(r Reader) ([]Change, error) {
		c, ok := r.Class(x.Class)
		if !ok {
			return nil, noClass(x.Class)
		}
		changes, err := withOwner(r, x.Owner, nil)
		if err != nil {
			return nil, err
		}
		was, _ := effective(r, x.Owner, &c)
		overs = lowered(overs[:0], r, x.Class, x.Owner, was, x.Limit)
		return append(changes, PutLimit{x}), nil
	})
	return l.tell(err, overs)
}

// UnsetLimit has the class's default be an owner's limit again. Errors: ErrNotFound
// (the class, or no limit is set).
func (l *Ledger) UnsetLimit(ctx context.Context, owner, class string) error {
	var overs []Over
	var unset error // it was done before: who is over is told all the same
	err := l.change(ctx, func(r Reader) ([]Change, error) {
		overs, unset = overs[:0], nil
		c, ok := r.Class(class)
		if !ok {
			return nil, noClass(class)
		}
		was, ok := r.Limit(owner, class)
		if !ok {
			overs = lowered(overs, r, class, owner, c.Default, c.Default)
			unset = faultf(ErrNotFound, "no limit of %s is set for owner %q", class, owner)
			return nil, nil
		}
		overs = lowered(overs, r, class, owner, was, c.Default)
		return []Change{DropLimit{Owner: owner, Class: class}}, nil
	})
	if err = l.tell(err, overs); err != nil {
		return err
	}
	return unset
}

// Limits returns the limits that are set, sorted by owner and class.
func (l *Ledger) Limits(ctx context.Context) (list []OwnerLimit, err error) {
	err = l.store.View(ctx, func(r Reader) { list = r.Limits() })
	return list, err
}

// Usage returns what an owner has of every class; for the owner "" what all owners
// have, each, and all together. An owner never named before has nothing, and default
// limits.
func (l *Ledger) Usage(ctx context.Context, owner string) (list []Usage, err error) {
	if owner != "" && !ValidOwner(owner) {
		return nil, invalid("owner name %q", owner)
	}
	err = l.store.View(ctx, func(r Reader) {
		list = list[:0]
		names := []string{owner}
		if owner == "" {
			for _, o := range r.Owners() {
				names = append(names, o.Name)
			}
		}
		for _, name := range names {
			for _, c := range r.Classes() {
				u := Usage{Class: c.Name, Owner: name, Sum: r.Used(name, c.Name)}
				u.Limit, u.Origin = effective(r, name, &c)
				list = append(list, u)
			}
		}
	})
	return list, err
}

// Get returns a claim. Errors: ErrNotFound.
func (l *Ledger) Get(ctx context.Context, f Ref) (c *Claim, err error) {
	var missing error
	if err = l.store.View(ctx, func(r Reader) { c, missing = f.find(r) }); err != nil {
		return nil, err
	}
	return c, missing
}

// Claims returns all claims, sorted by id; with an owner, those of that owner alone.
func (l *Ledger) Claims(ctx context.Context, owner string) (list []*Claim, err error) {
	err = l.store.View(ctx, func(r Reader) { list = r.Claims() })
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	if owner == "" {
		return list, nil
	}
	kept := list[:0]
	for _, c := range list {
		if c.Owner == owner {
			kept = append(kept, c)
		}
	}
	return kept, nil
}
