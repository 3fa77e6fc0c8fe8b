package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
)

// quotaRoot is the root of the container that a pool's quotas are in. It is created
// with the first class, limit or claim.
const quotaRoot = ".quota"

// The container's logs: a share of the pool, within these.
const (
	quotaShare    = 1024
	minQuotaBytes = 256 << 10
	maxQuotaBytes = 16 << 20
)

// expiryPause is how late a reservation ends by itself, at most, after its time.
const expiryPause = time.Second

// quotaPool is a pool that can have quotas: one of package mpool.
type quotaPool interface {
	Pool
	SystemContainer(ctx context.Context, name string, capacity int64) (api.MDC, error)
	SetHoldingLimits(l mpool.HoldingLimits)
	Held(owner uint32) (committed, uncommitted mpool.Holding)
}

// quotas are one pool's quotas. What its objects hold is counted by the pool, which
// has the limits of the built-in classes; the other classes' claims are in the store.
// The two meet in the store's view: see quotas.external.
type quotas struct {
	srv  *Server
	pool quotaPool
	home *activePool

	logs    atomic.Pointer[[2]layout.ObjectID] // of the store's container; nil: none
	opening chan struct{}                      // a token while the store is being opened

	mu sync.Mutex
	// +checklocks:mu
	owners map[string]uint32 // by path
	// +checklocks:mu
	store *embedded.Store // nil: the pool has no container for it yet
	// +checklocks:mu
	ledger *quota.Ledger
	// +checklocks:mu
	closed bool
	broken error // why there are none; set before others see this
	// +checklocks:mu
	soonest time.Time // the next end of a reservation; zero: none
	wake    chan struct{}
	stop    chan struct{}
	ended   chan struct{} // closed when the expirer has ended
}

// newQuotas opens a pool's quotas, if it has any.
func newQuotas(ctx context.Context, s *Server, a *activePool) (*quotas, error) {
	p := a.pool
	qp, ok := p.(quotaPool)
	if !ok {
		return nil, nil //nolint:nilnil // a pool of another kind has none, for good
	}
	q := &quotas{
		srv: s, pool: qp, home: a, opening: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := q.readOwners(ctx); err != nil {
		return nil, err
	}
	err := q.findLogs(ctx)
	if err != nil {
		return nil, err
	}
	mdc, err := qp.SystemContainer(ctx, quotaRoot, 0)
	switch {
	case errors.Is(err, api.ENOENT):
		err = q.preview(ctx)
	case err == nil:
		err = q.open(ctx, mdc)
	}
	if err != nil {
		// The pool can be read; who may hold how much is not known, so nobody gets more.
		s.log.Error("cannot open the quotas of a pool: nothing can be allocated in it", slog.String("pool", p.Name()), slog.Any("error", err))
		q.broken = fmt.Errorf("the pool's quotas could not be opened: %w", err)
		qp.SetHoldingLimits(mpool.HoldingLimits{})
	}
	go q.expirer()
	return q, nil
}

// builtIn are the classes of what objects hold.
func builtIn() []quota.Class {
	list := make([]quota.Class, mpool.NumHoldings)
	for k := range mpool.NumHoldings {
		unit := quota.Count
		if k == mpool.HoldCapacity || k == mpool.HoldStaging {
			unit = quota.Bytes
		}
		list[k] = quota.NewClass(k.String(), unit)
		list[k].External = true
	}
	return list
}

// preview gives a ledger on nothing, for those who look.
func (q *quotas) preview(ctx context.Context) error {
	m := viewStore{quota.NewMemory(), q}
	l := quota.New(m, quota.Options{})
	for _, c := range builtIn() {
		if err := l.Define(ctx, c); err != nil {
			return err
		}
	}
	owners, err := q.List(ctx)
	if err != nil {
		return err
	}
	for _, o := range owners {
		if err := l.AddOwner(ctx, o); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ledger = l
	return nil
}

// viewStore shows what objects hold in a store that has no claims.
type viewStore struct {
	quota.Store
	q *quotas
}

func (v viewStore) View(ctx context.Context, f func(quota.Reader)) error {
	return v.Store.View(ctx, func(r quota.Reader) { f(viewReader{r, v.q}) })
}

type viewReader struct {
	quota.Reader
	q *quotas
}

func (v viewReader) Used(owner, class string) quota.Sum { return v.q.external(owner, class) }

// open opens the store in a container, which is closed if that fails.
func (q *quotas) open(ctx context.Context, mdc api.MDC) error {
	st, err := embedded.Open(ctx, mdc, embedded.Options{Owners: q, External: q.external, Changed: q.changed})
	if err != nil {
		return errors.Join(err, mdc.Close(ctx))
	}
	l := quota.New(st, quota.Options{Now: q.srv.clock.Now, OnOver: q.over})
	for _, c := range builtIn() {
		have := false
		err = st.View(ctx, func(r quota.Reader) { _, have = r.Class(c.Name) })
		if err == nil && !have {
			err = l.Define(ctx, c)
		}
		if err != nil {
			return errors.Join(err, st.Close(ctx))
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.store, q.ledger = st, l
	return nil
}

// of returns the ledger to look into or, to change something, the one of the store,
// which is created if there is none.
func (q *quotas) of(ctx context.Context, change bool) (*quota.Ledger, error) {
	for {
		q.mu.Lock()
		l, st, closed := q.ledger, q.store, q.closed
		q.mu.Unlock()
		switch {
		case q.broken != nil:
			return nil, q.broken
		case closed:
			return nil, api.Errorf(api.EBADF, "", "the pool is being deactivated")
		case st != nil, !change:
			return l, nil
		}
		select {
		case q.opening <- struct{}{}:
		case <-ctx.Done():
			return nil, api.ContextError("", context.Cause(ctx))
		}
		err := q.create(ctx)
		<-q.opening
		if err != nil {
			return nil, err
		}
	}
}

func (q *quotas) create(ctx context.Context) error {
	q.mu.Lock()
	done := q.store != nil || q.closed
	q.mu.Unlock()
	if done {
		return nil
	}
	info, err := q.pool.Info(ctx)
	if err != nil {
		return err
	}
	mdc, err := q.pool.SystemContainer(ctx, quotaRoot, min(max(info.Space.Total/quotaShare, minQuotaBytes), maxQuotaBytes))
	if err != nil {
		return err
	}
	if err := q.findLogs(ctx); err != nil {
		return errors.Join(err, mdc.Close(ctx))
	}
	return q.open(ctx, mdc)
}

// findLogs looks which objects are the store's, if there is one.
func (q *quotas) findLogs(ctx context.Context) error {
	roots, err := q.pool.Roots(ctx)
	for _, r := range roots {
		if r.Name != quotaRoot {
			continue
		}
		info, err := q.pool.Describe(ctx, r.ID)
		if err != nil && !errors.Is(err, api.ENOENT) {
			return err
		}
		q.logs.Store(&[2]layout.ObjectID{r.ID, info.Partner})
	}
	return err
}

// system says whether an object is the pool's own, and no tenant's: a log of its
// quotas' store. Only who administers the pool finds it.
func (a *activePool) system(id layout.ObjectID) bool {
	q := a.quotas.Load()
	if q == nil {
		return false
	}
	logs := q.logs.Load()
	return logs != nil && slices.Contains(logs[:], id)
}

// close closes the store. The pool can be closed then.
func (q *quotas) close(ctx context.Context) error {
	if q == nil {
		return nil
	}
	q.opening <- struct{}{} // whoever creates the store has ended
	defer func() { <-q.opening }()
	q.mu.Lock()
	st, was := q.store, q.closed
	q.closed = true
	q.mu.Unlock()
	if was {
		return nil
	}
	close(q.stop)
	<-q.ended
	if st == nil {
		return nil
	}
	return st.Close(ctx)
}

// external says what is held of a built-in class.
func (q *quotas) external(owner, class string) quota.Sum {
	index := uint32(0)
	if owner != "" {
		q.mu.Lock()
		i, ok := q.owners[owner]
		q.mu.Unlock()
		if !ok {
			return quota.Sum{}
		}
		index = i
	}
	committed, uncommitted := q.pool.Held(index)
	for k := range mpool.NumHoldings {
		if k.String() == class {
			return quota.Sum{Held: committed[k], Reserved: uncommitted[k]}
		}
	}
	return quota.Sum{}
}

// changed gives the pool the limits of the built-in classes, and looks when the next
// reservation ends. It is called under the store's lock, in the order of changes.
func (q *quotas) changed(r quota.Reader, changes []quota.Change) {
	limits := changes == nil
	var next time.Time
	if changes == nil {
		next, _ = r.NextExpiry()
	}
	for _, c := range changes {
		switch c := c.(type) {
		case quota.PutClass, quota.DropClass, quota.PutLimit, quota.DropLimit:
			limits = true
		case quota.PutClaim:
			if e := c.Claim.Expires; c.Claim.State == quota.Reserved && (next.IsZero() || e.Before(next)) {
				next = e
			}
		}
	}
	if limits {
		q.setLimits(r)
	}
	if next.IsZero() {
		return
	}
	q.mu.Lock()
	sooner := q.soonest.IsZero() || next.Before(q.soonest)
	if sooner {
		q.soonest = next
	}
	q.mu.Unlock()
	if !sooner {
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *quotas) setLimits(r quota.Reader) {
	l := mpool.HoldingLimits{Own: make(map[uint32]mpool.Holding)}
	for k := range mpool.NumHoldings {
		c, ok := r.Class(k.String())
		if !ok {
			c = quota.NewClass(k.String(), quota.Count)
		}
		l.Total[k], l.Default[k] = int64(c.Total), int64(c.Default)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range r.Limits() {
		index, ok := q.owners[x.Owner]
		for k := range mpool.NumHoldings {
			if ok && k.String() == x.Class {
				own, had := l.Own[index]
				if !had {
					own = l.Default
				}
				own[k] = int64(x.Limit)
				l.Own[index] = own
			}
		}
	}
	q.pool.SetHoldingLimits(l)
}

// over tells of an owner that holds more than a limit which was lowered.
func (q *quotas) over(o quota.Over) {
	whose := "owner " + o.Owner
	if o.Owner == "" {
		whose = "all owners together"
	}
	q.srv.tellEvent(ioctl.Event{
		Type: ioctl.EventOverQuota, Pool: q.home.title(),
		Text: fmt.Sprintf("%s: class %s: %d held, limit %v, over by %d", whose, o.Class, o.Used, o.Limit, o.By()),
	})
}
