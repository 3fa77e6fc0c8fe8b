package server

import (
	"context"
	"errors"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/quota"
)

// quotaError makes an error of the API of one of package quota.
func quotaError(err error) error {
	if err == nil || errors.As(err, new(*api.Error)) && !errors.Is(err, quota.ErrUnknown) && !errors.Is(err, quota.ErrFull) {
		return err
	}
	e := &api.Error{Code: api.CodeOf(err), Detail: err.Error()}
	for _, x := range []struct {
		is   error
		code api.Code
	}{
		{quota.ErrExceeded, api.EDQUOT},
		{quota.ErrNotFound, api.ENOENT},
		{quota.ErrExists, api.EEXIST},
		{quota.ErrInvalid, api.EINVAL},
		{quota.ErrExpired, api.ESTATE},
		{quota.ErrState, api.ESTATE},
		{quota.ErrInUse, api.EBUSY},
		{quota.ErrFull, api.ENOSPC},
		{quota.ErrUnknown, api.EUNKNOWN},
	} {
		if errors.Is(err, x.is) {
			e.Code = x.code
			break
		}
	}
	if over, ok := errors.AsType[*quota.Exceeded](err); ok {
		e.Want = over.Asked
		e.Refusal = &api.Refusal{Class: over.Class, Owner: over.Owner, Used: over.Used, Asked: over.Asked, Limit: limitOf(over.Limit)}
		if over.Limit != quota.Unlimited {
			e.Have = max(0, int64(over.Limit)-over.Used)
		}
	}
	return e
}

// quotaAsker is a request about quotas: for whom it may ask.
type quotaAsker struct {
	*request
	q *quotas
	x access
}

func (r *request) quotas(h ioctl.Handle, write bool) (*quotaAsker, error) {
	p, err := usePool(r, h, write)
	if err != nil {
		return nil, err
	}
	q := p.pool.quotas.Load()
	if q == nil {
		return nil, api.Errorf(api.ENOTSUP, "", "the pool has no quotas")
	}
	x, err := r.access(p.pool)
	return &quotaAsker{request: r, q: q, x: x}, err
}

// mayUse says whether the session acts for an owner.
func (a *quotaAsker) mayUse(owner string) bool {
	if a.x.names {
		return true
	}
	index, ok := a.q.index(owner)
	return ok && a.x.ruled && a.x.may(index)
}

func (a *quotaAsker) mustUse(owner string) error {
	if a.mayUse(owner) {
		return nil
	}
	return api.Errorf(api.EPERM, "", "user %d does not act for owner %q: no rule of the daemon's says so", a.s.peer.uid, owner)
}

func limitOf(l quota.Limit) int64 { return int64(l) }

// quotaShow gives a page of classes, limits, usage or claims.
func quotaShow(r *request, m *ioctl.QuotaShow) (ioctl.Message, error) {
	a, err := r.quotas(m.Pool, false)
	if err != nil {
		return nil, err
	}
	l, err := a.q.of(r.ctx, false)
	if err != nil {
		return nil, err
	}
	owner := ""
	if m.Owner != "" {
		if owner, _, err = a.q.owner(r.ctx, m.Owner); err != nil {
			return nil, err
		}
	}
	reply, err := a.show(l, m.What, owner, int(m.From))
	return reply, quotaError(err)
}

func (a *quotaAsker) show(l *quota.Ledger, what ioctl.QuotaWhat, owner string, from int) (*ioctl.QuotaPage, error) {
	page := &ioctl.QuotaPage{}
	switch what {
	case ioctl.QuotaShowClasses:
		list, err := l.Classes(a.ctx)
		fill(page, list, from, func(c quota.Class) { page.Classes = append(page.Classes, apiClass(&c)) })
		return page, err
	case ioctl.QuotaShowLimits:
		list, err := l.Limits(a.ctx)
		list = slices.DeleteFunc(list, func(x quota.OwnerLimit) bool { return owner != "" && x.Owner != owner || !a.mayUse(x.Owner) })
		fill(page, list, from, func(x quota.OwnerLimit) {
			page.Limits = append(page.Limits, api.QuotaLimit{Owner: x.Owner, Class: x.Class, Limit: limitOf(x.Limit)})
		})
		return page, err
	case ioctl.QuotaShowUsage:
		list, err := l.Usage(a.ctx, owner)
		list = slices.DeleteFunc(list, func(u quota.Usage) bool { return !a.mayUse(u.Owner) })
		fill(page, list, from, func(u quota.Usage) {
			page.Usage = append(page.Usage, api.QuotaUsage{
				Class: u.Class, Owner: u.Owner, Held: u.Sum.Held, Reserved: u.Sum.Reserved,
				Limit: limitOf(u.Limit), Origin: u.Origin.String(),
			})
		})
		return page, err
	case ioctl.QuotaShowClaims:
		list, err := l.Claims(a.ctx, owner)
		list = slices.DeleteFunc(list, func(c *quota.Claim) bool { return !a.mayUse(c.Owner) })
		fill(page, list, from, func(c *quota.Claim) { page.Claims = append(page.Claims, apiClaim(c)) })
		return page, err
	}
	return nil, api.Errorf(api.EINVAL, "", "nothing of quotas to show has the number %d", what)
}

// fill adds entries to a page as long as there is room.
func fill[T any](page *ioctl.QuotaPage, list []T, from int, add func(T)) {
	for _, x := range list[min(from, len(list)):] {
		if !page.Fits() {
			page.More = true
			return
		}
		add(x)
	}
}

func apiClass(c *quota.Class) api.QuotaClass {
	return api.QuotaClass{
		Name: c.Name, Bytes: c.Unit == quota.Bytes, Total: limitOf(c.Total), Default: limitOf(c.Default),
		Min: c.Min, Max: limitOf(c.Max), Step: c.Step, BuiltIn: c.External,
	}
}

func apiClaim(c *quota.Claim) api.QuotaClaim {
	out := api.QuotaClaim{ID: c.ID.String(), Owner: c.Owner, State: c.State.String(), Expires: c.Expires, Real: c.Real}
	if c.Parent != 0 {
		out.Parent = c.Parent.String()
	}
	for _, x := range c.Amounts {
		out.Amounts = append(out.Amounts, api.QuotaAmount(x))
	}
	return out
}

// quotaSet changes classes, limits and owners.
func quotaSet(r *request, m *ioctl.QuotaSet) (ioctl.Message, error) {
	a, err := r.quotas(m.Pool, true)
	if err != nil {
		return nil, err
	}
	if !a.x.names {
		return nil, api.Errorf(api.EPERM, "", "only administrators and the pool's own user change classes, limits and owners")
	}
	l, err := a.q.of(r.ctx, true)
	if err != nil {
		return nil, err
	}
	return &ioctl.Empty{}, quotaError(a.set(l, m))
}

func (a *quotaAsker) set(l *quota.Ledger, m *ioctl.QuotaSet) error {
	ctx := a.ctx
	switch m.Verb {
	case ioctl.QuotaDefine:
		return a.define(ctx, l, &m.Class)
	case ioctl.QuotaRemoveClass:
		return l.RemoveClass(ctx, m.Class.Name)
	case ioctl.QuotaSetLimit:
		owner, err := a.q.ensureOwner(ctx, l, m.Limit.Owner)
		if err != nil {
			return err
		}
		return l.SetLimit(ctx, quota.OwnerLimit{Owner: owner, Class: m.Limit.Class, Limit: quota.Limit(m.Limit.Limit)})
	case ioctl.QuotaUnsetLimit:
		owner, _, err := a.q.owner(ctx, m.Limit.Owner)
		if err != nil {
			return err
		}
		return l.UnsetLimit(ctx, owner, m.Limit.Class)
	case ioctl.QuotaAddOwner:
		path, above := m.Limit.Owner, m.Limit.Class
		if above != "" {
			var err error
			if above, err = a.q.ensureOwner(ctx, l, above); err != nil {
				return err
			}
			path = above + "/" + path
		}
		return l.AddOwner(ctx, quota.Owner{Name: path, Parent: above})
	}
	return api.Errorf(api.EINVAL, "", "no change of quotas has the number %d", m.Verb)
}

func (a *quotaAsker) define(ctx context.Context, l *quota.Ledger, c *api.QuotaClass) error {
	class := quota.Class{
		Name: c.Name, Total: quota.Limit(c.Total), Default: quota.Limit(c.Default),
		Min: c.Min, Max: quota.Limit(c.Max), Step: c.Step,
	}
	if c.Bytes {
		class.Unit = quota.Bytes
	}
	for _, b := range builtIn() {
		if b.Name != c.Name {
			continue
		}
		if class.Min != 1 || class.Step != 1 || class.Max != quota.Unlimited {
			return api.Errorf(api.EINVAL, "", "class %s is built in: an object is as large as its allocation asks; it has a total and a default only", c.Name)
		}
		class.Unit, class.External = b.Unit, true
	}
	return l.Define(ctx, class)
}

// quotaClaim makes, changes and ends claims.
func quotaClaim(r *request, m *ioctl.QuotaClaim) (ioctl.Message, error) {
	a, err := r.quotas(m.Pool, true)
	if err != nil {
		return nil, err
	}
	l, err := a.q.of(r.ctx, true)
	if err != nil {
		return nil, err
	}
	list, err := a.claim(l, m)
	if err != nil {
		return nil, quotaError(err)
	}
	page := &ioctl.QuotaPage{}
	fill(page, list, 0, func(c *quota.Claim) { page.Claims = append(page.Claims, apiClaim(c)) })
	return page, nil
}

func (a *quotaAsker) claim(l *quota.Ledger, m *ioctl.QuotaClaim) ([]*quota.Claim, error) {
	ctx := a.ctx
	amounts := make([]quota.Amount, len(m.Amounts))
	for i, x := range m.Amounts {
		amounts[i] = quota.Amount(x)
	}
	one := func(c *quota.Claim, err error) ([]*quota.Claim, error) { return []*quota.Claim{c}, err }
	switch m.Verb {
	case ioctl.QuotaReserve:
		return one(a.reserve(l, m, amounts))
	case ioctl.QuotaExpire:
		if !a.x.names {
			return nil, api.Errorf(api.EPERM, "", "only administrators and the pool's own user end what is over; it ends by itself")
		}
		return l.Expire(ctx)
	case ioctl.QuotaProvision, ioctl.QuotaResize, ioctl.QuotaRelease, ioctl.QuotaTransfer:
	default:
		return nil, api.Errorf(api.EINVAL, "", "no call about claims has the number %d", m.Verb)
	}
	ref := quota.ParseRef(m.Ref)
	c, err := l.Get(ctx, ref)
	if err == nil {
		err = a.mustUse(c.Owner)
	} else if errors.Is(err, quota.ErrNotFound) && a.x.names {
		err = nil // a repeated request may be about what has ended
	}
	if err != nil {
		return nil, err
	}
	switch m.Verb { //nolint:exhaustive // the others are done above
	case ioctl.QuotaProvision:
		if ref.ID == 0 {
			return nil, api.Errorf(api.EINVAL, "", "%q is not a reservation's id: want 16 hex digits", m.Ref)
		}
		return one(l.Provision(ctx, ref.ID, m.Real, m.Request))
	case ioctl.QuotaResize:
		return one(l.Resize(ctx, ref, amounts, m.Request))
	case ioctl.QuotaRelease:
		list, err := l.Release(ctx, ref, m.Request)
		slices.Reverse(list)
		return list, err
	default:
		owner, err := a.q.ensureOwnerFor(a, l, m.Owner)
		if err != nil {
			return nil, err
		}
		return one(l.Transfer(ctx, ref, owner, m.Request))
	}
}

func (a *quotaAsker) reserve(l *quota.Ledger, m *ioctl.QuotaClaim, amounts []quota.Amount) (*quota.Claim, error) {
	ask := quota.Ask{Amounts: amounts, TTL: m.TTL, Request: m.Request}
	if m.Ref != "" {
		id, ok := quota.ParseID(m.Ref)
		if !ok {
			c, err := l.Get(a.ctx, quota.ByReal(m.Ref))
			if err != nil {
				return nil, err
			}
			id = c.ID
		}
		ask.Parent = id
		above, err := l.Get(a.ctx, quota.ByID(id))
		if err == nil {
			err = a.mustUse(above.Owner)
		}
		if err != nil && (!errors.Is(err, quota.ErrNotFound) || !a.x.names) {
			return nil, err
		}
	}
	var err error
	if ask.Owner, err = a.q.ensureOwnerFor(a, l, m.Owner); err != nil {
		return nil, err
	}
	return l.Reserve(a.ctx, ask)
}

// ensureOwnerFor is ensureOwner for a session that acts for the owner; only who may
// name any makes one.
func (q *quotas) ensureOwnerFor(a *quotaAsker, l *quota.Ledger, name string) (string, error) {
	path, _, err := q.owner(a.ctx, name)
	if err != nil {
		return "", err
	}
	if err := a.mustUse(path); err != nil {
		return "", err
	}
	return q.ensureOwner(a.ctx, l, path)
}
