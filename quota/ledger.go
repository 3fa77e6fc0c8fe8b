package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Options are what a ledger runs on. The zero value is the real world.
type Options struct {
	// Now is the clock by which reservations end; nil: the machine's.
	Now func() time.Time
	// Sleep returns after a pause, or with the context's error; nil: it sleeps.
	Sleep func(ctx context.Context, d time.Duration) error
	// Jitter returns a random part of a pause; nil: of equal chance.
	Jitter func(d time.Duration) time.Duration
	// TTL is how long a reservation lasts that does not say, at most MaxTTL; 0 or less:
	// an hour.
	TTL time.Duration
	// OnOver is told of who holds more than a limit that was lowered, or was set again as
	// it is; nil: nobody is. It is called once for each, by the call that set it, after it
	// is done. Who does not know the outcome of a call repeats it, and this is called.
	OnOver func(Over)
}

// MaxTTL bounds how long a reservation may last.
const MaxTTL = 10 * 365 * 24 * time.Hour

// Over says who holds more than they may, and by how much, since a limit was lowered.
type Over struct {
	Class string
	Owner string // "": all together, over the class's total
	Used  int64
	Limit Limit
}

// By returns by how much.
func (o Over) By() int64 { return o.Used - int64(o.Limit) }

// Ledger makes, changes and ends claims in a store. It knows nothing of its own: any
// number of ledgers, in any number of processes, may work on one store. Safe for
// concurrent use.
//
// All methods return a context's error, having done nothing, if that ends before they
// have come through; what a store says itself; and what is told for each. [ErrUnknown]
// comes first: with it, something may have been done, also if the context has ended.
type Ledger struct {
	store Store
	opt   Options

	// The memory of a call that has ended, for the next one.
	idleClaim   atomic.Pointer[claiming]
	idleRelease atomic.Pointer[releasing]
}

// New returns a ledger on a store.
func New(store Store, opt Options) *Ledger {
	if opt.Now == nil {
		opt.Now = time.Now //nolint:forbidigo // this is the clock that others may inject
	}
	if opt.Sleep == nil {
		opt.Sleep = sleep
	}
	if opt.Jitter == nil {
		opt.Jitter = func(d time.Duration) time.Duration { return rand.N(d) } //nolint:gosec // no secret
	}
	if opt.TTL <= 0 {
		opt.TTL = time.Hour
	}
	opt.TTL = min(opt.TTL, MaxTTL)
	if opt.OnOver == nil {
		opt.OnOver = func(Over) {}
	}
	return &Ledger{store: store, opt: opt}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The pauses between tries: the first is short enough that whoever came between has
// not even gone, the last as long as a slow store takes.
const (
	firstPause = 50 * time.Microsecond
	lastPause  = 20 * time.Millisecond
)

// decider says what to do, with a fresh view each time.
type decider interface {
	decide(r Reader) ([]Change, error)
}

// deciding is a decider that is a function.
type deciding func(Reader) ([]Change, error)

func (f deciding) decide(r Reader) ([]Change, error) { return f(r) }

// try is one attempt at a change.
type try struct {
	l       *Ledger
	by      decider
	f       func(Reader) // view, made once
	g       Generation
	changes []Change
	refused error
	full    error // what the store said when it had no room for the changes
	sweep   bool  // what has expired is in the way, and is to be ended first
}

func (t *try) view(r Reader) {
	t.g, t.sweep = r.Generation(), false
	if t.changes, t.refused = t.by.decide(r); t.refused == nil {
		t.refused = t.full
	}
	if errors.Is(t.refused, ErrExceeded) || errors.Is(t.refused, ErrFull) {
		t.changes = dropAll(nil, expired(r, t.l.opt.Now()), Request{})
		t.sweep = len(t.changes) > 0
	}
}

// change has decide say what to do, with a fresh view each time, until it is done, or
// decide refuses.
func (l *Ledger) change(ctx context.Context, decide deciding) error {
	t := &try{l: l, by: decide}
	t.f = t.view
	return l.run(ctx, t)
}

// run is change for a try that its caller has made, as a part of what decides.
func (l *Ledger) run(ctx context.Context, t *try) error {
	for conflicts := 0; ; {
		if err := l.store.View(ctx, t.f); err != nil {
			return err
		}
		if t.refused != nil && !t.sweep {
			return t.refused
		}
		err := l.store.Apply(ctx, t.g, t.changes)
		switch {
		case err == nil && !t.sweep:
			return nil
		case err == nil: // swept
			t.full = nil
			continue
		case errors.Is(err, ErrFull) && !t.sweep:
			t.full = err
			continue
		case !errors.Is(err, ErrConflict):
			return err
		}
		pause := min(firstPause<<min(conflicts, 16), lastPause)
		conflicts++
		if err := l.opt.Sleep(ctx, pause/4+l.opt.Jitter(pause)); err != nil {
			return fmt.Errorf("after %d conflicts with others: %w", conflicts, err)
		}
	}
}

// effective returns an owner's limit for a class, and where it comes from.
func effective(r Reader, owner string, c *Class) (Limit, Origin) {
	if owner == "" {
		return c.Total, FromTotal
	}
	if l, ok := r.Limit(owner, c.Name); ok {
		return l, FromOwner
	}
	return c.Default, FromDefault
}

// nobody is a name that no owner has.
const nobody = "\x00"

// check says whether an owner, and all above it, may hold so much more. stop and all
// above that are not asked.
func check(r Reader, owner, stop string, more []Amount) error {
	for _, a := range more {
		if a.N <= 0 {
			continue
		}
		c, ok := r.Class(a.Class)
		if !ok {
			return noClass(a.Class)
		}
		for name := owner; name != stop; {
			used := r.Used(name, a.Class).Total()
			if limit, _ := effective(r, name, &c); !limit.fits(used, a.N) {
				return &Exceeded{Class: a.Class, Owner: name, Used: used, Asked: a.N, Limit: limit}
			}
			if name == "" {
				break
			}
			o, _ := r.Owner(name) // one that is not there yet comes below the root
			name = o.Parent
		}
	}
	return nil
}

func noClass(name string) error { return faultf(ErrNotFound, "no class %q", name) }

// expired returns claims that have ended by their time: all below them have, too.
// Those below come before those above. They are all, or as many as one change ends.
func expired(r Reader, now time.Time) []*Claim {
	due := r.Due(now)
	ended := make(map[ID]bool, len(due))
	var list []*Claim
	for _, c := range slices.Backward(due) { // a claim's id is higher than that of the one above
		all := true
		for _, child := range r.Children(c.ID) {
			all = all && ended[child]
		}
		if all {
			ended[c.ID] = true
			list = append(list, c)
		}
		if len(list) == MaxSubtree {
			break
		}
	}
	return list
}

// isExpired says whether one claim has ended by its time.
func isExpired(r Reader, c *Claim, now time.Time) bool {
	if c.State != Reserved || c.Expires.After(now) {
		return false
	}
	for _, id := range r.Children(c.ID) {
		if child, ok := r.Claim(id); ok && !isExpired(r, child, now) {
			return false
		}
	}
	return true
}

// dropAll adds changes that remove claims, the last of them by a request.
func dropAll(changes []Change, list []*Claim, by Request) []Change {
	changes = slices.Grow(changes, len(list))
	for i, c := range list {
		d := DropClaim{ID: c.ID}
		if i == len(list)-1 {
			d.Request = by
		}
		changes = append(changes, d)
	}
	return changes
}

// subtree returns a claim and all below it, those below before those above.
func subtree(r Reader, c *Claim) []*Claim {
	list := []*Claim{c}
	for i := 0; i < len(list); i++ {
		for _, id := range r.Children(list[i].ID) {
			if child, ok := r.Claim(id); ok {
				list = append(list, child)
			}
		}
	}
	slices.Reverse(list)
	return list
}

// withOwner adds the owner if it was never named before.
func withOwner(r Reader, name string, changes []Change) ([]Change, error) {
	if err := validOwner(name); err != nil {
		return nil, err
	}
	if _, ok := r.Owner(name); !ok {
		changes = append(changes, PutOwner{Owner{Name: name}})
	}
	return changes, nil
}
