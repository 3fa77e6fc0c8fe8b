package quota

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"
)

// Ask is what is claimed.
type Ask struct {
	Owner   string
	Amounts []Amount      // a class that is named twice is added up
	Parent  ID            // the claim that it is to lie under, or 0
	TTL     time.Duration // of a reservation; 0: the ledger's
	Real    string        // if set, it is held from the beginning, under this id
	Request string        // an id of the caller's by which the call can be repeated, or ""
}

// Ref names a claim: by its id, or, if that is 0, by its real id.
type Ref struct {
	ID   ID
	Real string
}

// ByID names a claim by its id.
func ByID(id ID) Ref { return Ref{ID: id} }

// ByReal names a claim by its real id.
func ByReal(name string) Ref { return Ref{Real: name} }

func (f Ref) String() string {
	if f.ID != 0 {
		return f.ID.String()
	}
	return strconv.Quote(f.Real)
}

// ParseRef takes 16 hex digits for an id, anything else for a real id.
func ParseRef(s string) Ref {
	if id, ok := ParseID(s); ok {
		return ByID(id)
	}
	return ByReal(s)
}

func (f Ref) find(r Reader) (*Claim, error) {
	var c *Claim
	var ok bool
	if f.ID != 0 {
		c, ok = r.Claim(f.ID)
	} else {
		c, ok = r.Real(f.Real)
	}
	if !ok {
		return nil, faultf(ErrNotFound, "no claim %v", f)
	}
	return c, nil
}

// Claim makes a claim, of all classes or of none: a reservation, or, with a real id,
// one that is held. Errors: ErrExceeded, ErrNotFound (class, parent; or the claim of
// this request has ended), ErrExpired (the parent has), ErrExists (real id), ErrInvalid.
func (l *Ledger) Claim(ctx context.Context, a Ask) (*Claim, error) {
	x := l.idleClaim.Swap(nil)
	if x == nil {
		x = &claiming{}
		x.f = x.view
	}
	x.try = try{l: l, by: x, f: x.f}
	x.ask = a
	c, err := x.do(ctx)
	*x = claiming{try: try{f: x.f}} // nothing of this call is kept
	l.idleClaim.Store(x)
	return c, err
}

func (x *claiming) do(ctx context.Context) (*Claim, error) {
	if err := x.prepare(); err != nil {
		return nil, err
	}
	if err := x.l.run(ctx, &x.try); err != nil {
		return nil, err
	}
	return x.made, nil
}

// claiming is one call of Claim: one piece of memory, which is used again.
type claiming struct {
	try
	ask  Ask
	req  Request
	made *Claim
	one  [2]Change
}

func (x *claiming) prepare() (err error) {
	a := &x.ask
	if a.Amounts, err = normal(a.Amounts); err != nil {
		return err
	}
	switch {
	case len(a.Amounts) == 0:
		return invalid("nothing is claimed")
	case a.TTL < 0 || a.TTL > MaxTTL:
		return invalid("a reservation for %v: want more than 0, at most %v", a.TTL, MaxTTL)
	}
	if a.Real != "" {
		if err := validReal(a.Real); err != nil {
			return err
		}
	}
	if a.Request != "" {
		x.req, err = newRequest(a.Request, "claim", a.Owner, a.Parent.String(), a.Real, a.TTL.String(), amountText(a.Amounts))
	}
	if a.TTL == 0 { // not a part of the request: ledgers differ in it
		a.TTL = x.l.opt.TTL
	}
	return err
}

func (x *claiming) decide(r Reader) ([]Change, error) {
	a := &x.ask
	if done, err := repeated(r, x.req, &x.made); done || err != nil {
		return nil, err
	}
	changes, err := withOwner(r, a.Owner, x.one[:0])
	if err != nil {
		return nil, err
	}
	now := x.l.opt.Now()
	if err := mayClaim(r, a, now); err != nil {
		return nil, err
	}
	c := &Claim{ID: r.NextID(), Parent: a.Parent, Owner: a.Owner, State: Held, Real: a.Real, Amounts: a.Amounts}
	if a.Real == "" {
		c.State, c.Expires = Reserved, now.Add(a.TTL+time.Millisecond-1).UTC().Truncate(time.Millisecond)
	}
	if x.req.ID != "" {
		c.Requests = []Request{x.req}
	}
	x.made = c
	return append(changes, PutClaim{c}), nil
}

func mayClaim(r Reader, a *Ask, now time.Time) error {
	if a.Parent != 0 {
		parent, ok := r.Claim(a.Parent)
		switch {
		case !ok:
			return faultf(ErrNotFound, "no claim %v to lie under", a.Parent)
		case isExpired(r, parent, now):
			return faultf(ErrExpired, "claim %v, to lie under, ended at %v", a.Parent, parent.Expires)
		}
	}
	if err := realFree(r, a.Real, 0); err != nil {
		return err
	}
	if err := admitted(r, a.Amounts, nil); err != nil {
		return err
	}
	return check(r, a.Owner, nobody, a.Amounts)
}

// admitted says whether the amounts may be those of a claim that was old.
func admitted(r Reader, amounts []Amount, old *Claim) error {
	for _, a := range amounts {
		c, ok := r.Class(a.Class)
		switch {
		case !ok:
			return noClass(a.Class)
		case c.External:
			return invalid("class %s is held by objects, not by claims", a.Class)
		}
		if err := c.admits(a.N, old != nil && a.N <= old.amount(a.Class)); err != nil {
			return err
		}
	}
	return nil
}

// Reserve is [Ledger.Claim] without a real id.
func (l *Ledger) Reserve(ctx context.Context, a Ask) (*Claim, error) {
	if a.Real != "" {
		return nil, invalid("a reservation has no real id: provision gives it one")
	}
	return l.Claim(ctx, a)
}

// Provision makes a reservation held, under an id of the caller's own. Again under
// the same id it does nothing. Errors: ErrNotFound, ErrExpired, ErrExists (another
// claim has the id), ErrState (it is held under another), ErrInvalid.
func (l *Ledger) Provision(ctx context.Context, id ID, name, request string) (*Claim, error) {
	if err := validReal(name); err != nil {
		return nil, err
	}
	return l.update(ctx, ByID(id), request, []string{"provision", id.String(), name}, func(r Reader, c *Claim) error {
		switch {
		case c.State == Held && c.Real == name:
			return errNothing
		case c.State == Held:
			return faultf(ErrState, "claim %v is held already, as %q", id, c.Real)
		case isExpired(r, c, l.opt.Now()):
			return faultf(ErrExpired, "reservation %v ended at %v", id, c.Expires)
		}
		c.State, c.Real, c.Expires = Held, name, time.Time{}
		return realFree(r, name, id)
	})
}

// Resize gives a claim other amounts of the classes named; the others stay. What
// grows is checked for the difference, what shrinks is not. 0 leaves the class out.
// Errors: ErrExceeded, ErrNotFound, ErrExpired, ErrInvalid.
func (l *Ledger) Resize(ctx context.Context, f Ref, amounts []Amount, request string) (*Claim, error) {
	to, err := normal(amounts)
	if err != nil {
		return nil, err
	}
	return l.update(ctx, f, request, []string{"resize", f.String(), amountText(to)}, func(r Reader, c *Claim) error {
		if isExpired(r, c, l.opt.Now()) {
			return faultf(ErrExpired, "reservation %v ended at %v", c.ID, c.Expires)
		}
		var more, keep []Amount
		for _, a := range to {
			if a.N > 0 {
				keep = append(keep, a)
			} else if _, ok := r.Class(a.Class); !ok {
				return noClass(a.Class)
			}
			more = append(more, Amount{a.Class, a.N - c.amount(a.Class)})
		}
		if err := admitted(r, keep, c); err != nil {
			return err
		}
		for _, a := range c.Amounts {
			if !slices.ContainsFunc(to, func(x Amount) bool { return x.Class == a.Class }) {
				keep = append(keep, a)
			}
		}
		slices.SortFunc(keep, byClass)
		if len(keep) > MaxAmounts {
			return invalid("%d classes in one claim: at most %d", len(keep), MaxAmounts)
		}
		c.Amounts = keep
		return check(r, c.Owner, nobody, more)
	})
}

// update changes one claim, a copy of which is given to f.
func (l *Ledger) update(ctx context.Context, f Ref, request string, asked []string, do func(Reader, *Claim) error) (*Claim, error) {
	req, err := newRequest(request, asked...)
	if err != nil {
		return nil, err
	}
	var result *Claim
	err = l.change(ctx, func(r Reader) ([]Change, error) {
		if done, err := repeated(r, req, &result); done || err != nil {
			return nil, err
		}
		old, err := f.find(r)
		if err != nil {
			return nil, err
		}
		c := *old
		switch err := do(r, &c); {
		case errors.Is(err, errNothing) && req.ID == "":
			result = old
			return nil, nil
		case err != nil && !errors.Is(err, errNothing):
			return nil, err
		}
		c.remember(req)
		result = &c
		return []Change{PutClaim{&c}}, nil
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// remember adds a request, on a list of the claim's own.
func (c *Claim) remember(req Request) {
	if req.ID == "" {
		return
	}
	list := append(slices.Clip(c.Requests), req)
	if len(list) > MaxRequests {
		list = slices.Delete(slices.Clone(list), 1, 2)
	}
	c.Requests = list
}

// repeated says whether a request was done before, and puts its claim there.
func repeated(r Reader, req Request, claim **Claim) (bool, error) {
	if req.ID == "" {
		return false, nil
	}
	before, id, ok := r.Request(req.ID)
	switch {
	case !ok:
		return false, nil
	case before.Sum != req.Sum:
		return false, invalid("request id %q was used for something else, claim %v", req.ID, id)
	}
	c, ok := r.Claim(id)
	if !ok {
		return false, faultf(ErrNotFound, "request %q was done before, and its claim %v has ended", req.ID, id)
	}
	*claim = c
	return true, nil
}

// newRequest makes a request of what is asked, so that another call under the same id
// is told apart.
func newRequest(id string, asked ...string) (Request, error) {
	if id == "" {
		return Request{}, nil
	}
	if !validID(id) {
		return Request{}, invalid("request id %q: want 1 to %d bytes of printable UTF-8", id, MaxName)
	}
	h := fnv.New64a()
	for _, s := range asked {
		_, _ = h.Write([]byte(strconv.Quote(s)))
	}
	return Request{ID: id, Sum: h.Sum64()}, nil
}

func validReal(name string) error {
	if !validID(name) {
		return invalid("real id %q: want 1 to %d bytes of printable UTF-8", name, MaxName)
	}
	if _, ok := ParseID(name); ok {
		return invalid("real id %q looks like the id of a claim, 16 hex digits: it could not be told from one", name)
	}
	return nil
}

func realFree(r Reader, name string, but ID) error {
	if c, ok := r.Real(name); name != "" && ok && c.ID != but {
		return faultf(ErrExists, "real id %q is that of claim %v", name, c.ID)
	}
	return nil
}

func byClass(x, y Amount) int { return cmp.Compare(x.Class, y.Class) }

// normal is addUp of what is to be one claim.
func normal(amounts []Amount) ([]Amount, error) {
	list, err := addUp(amounts)
	if err == nil && len(list) > MaxAmounts {
		return nil, invalid("%d classes in one claim: at most %d", len(list), MaxAmounts)
	}
	return list, err
}

// addUp adds up amounts of the same class and sorts them.
func addUp(amounts []Amount) ([]Amount, error) {
	list := slices.Clone(amounts)
	if len(list) > 1 {
		slices.SortFunc(list, byClass)
	}
	out := list[:0]
	for _, a := range list {
		switch last := len(out) - 1; {
		case a.N < 0:
			return nil, invalid("%d of %s: want 0 or more", a.N, a.Class)
		case last < 0 || out[last].Class != a.Class:
			out = append(out, a)
		case a.N > math.MaxInt64-out[last].N:
			return nil, invalid("%d and %d of %s: more than can be counted", out[last].N, a.N, a.Class)
		default:
			out[last].N += a.N
		}
	}
	return out, nil
}

func amountText(list []Amount) string {
	var b []byte
	for _, a := range list {
		b = strconv.AppendInt(append(append(b, a.Class...), '='), a.N, 10)
		b = append(b, ',')
	}
	return string(b)
}

// errNothing says that nothing is to be changed.
var errNothing = errors.New("nothing to do")
