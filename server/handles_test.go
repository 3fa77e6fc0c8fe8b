package server

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// takers has, for every operation that takes a handle, the kinds that it takes
// and a request with it.
func takers() map[ioctl.Op]struct {
	kinds []uhandle.Kind
	m     func(h ioctl.Handle) ioctl.Message
} {
	type taker = struct {
		kinds []uhandle.Kind
		m     func(h ioctl.Handle) ioctl.Message
	}
	target := func(h ioctl.Handle) ioctl.Message { return &ioctl.Target{Handle: h} }
	find := func(h ioctl.Handle) ioctl.Message { return &ioctl.Find{Pool: h, ID: 1} }
	alloc := func(h ioctl.Handle) ioctl.Message { return &ioctl.Alloc{Pool: h} }
	record := func(h ioctl.Handle) ioctl.Message { return &ioctl.AppendRecord{To: h} }
	k := func(kinds ...uhandle.Kind) []uhandle.Kind { return kinds }
	all := k(kindPool, kindMblock, kindMlog, kindAppender, kindReader, kindMDC, kindList)
	return map[ioctl.Op]taker{
		ioctl.OpClose:        {all, target},
		ioctl.OpPoolShow:     {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.PoolShow{Pool: h} }},
		ioctl.OpObjectInfo:   {k(kindMblock, kindMlog), target},
		ioctl.OpObjectGet:    {k(kindMblock, kindMlog), target},
		ioctl.OpObjectCommit: {k(kindMblock, kindMlog), target},
		ioctl.OpObjectAbort:  {k(kindMblock, kindMlog), target},
		ioctl.OpObjectDelete: {k(kindMblock, kindMlog), target},
		ioctl.OpCommitMany:   {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.CommitMany{Pool: h} }},
		ioctl.OpListOpen:     {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.ListOpen{Pool: h} }},
		ioctl.OpListNext:     {k(kindList), target},
		ioctl.OpRootsSet:     {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.RootsSet{Pool: h} }},
		ioctl.OpRootsList:    {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.RootsList{Pool: h} }},
		ioctl.OpOwnerAdd:     {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.OwnerAdd{Pool: h} }},
		ioctl.OpOwnerList:    {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.OwnerList{Pool: h} }},
		ioctl.OpQuotaShow:    {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.QuotaShow{Pool: h} }},
		ioctl.OpQuotaSet:     {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.QuotaSet{Pool: h} }},
		ioctl.OpQuotaClaim:   {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.QuotaClaim{Pool: h} }},
		ioctl.OpMblockAlloc:  {k(kindPool), alloc},
		ioctl.OpMblockFind:   {k(kindPool), find},
		ioctl.OpMblockWrite:  {k(kindMblock), func(h ioctl.Handle) ioctl.Message { return &ioctl.MblockWrite{Mblock: h} }},
		ioctl.OpMblockPut:    {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.MblockPut{Pool: h} }},
		ioctl.OpMblockRead:   {k(kindMblock), func(h ioctl.Handle) ioctl.Message { return &ioctl.MblockRead{Mblock: h} }},

		ioctl.OpCredit: {k(kindPool), func(h ioctl.Handle) ioctl.Message {
			return &ioctl.CreditMessage{Pool: h, Message: credit.Message{Kind: credit.Borrow, Session: 1}}
		}},
		ioctl.OpCreditRevoke: {k(kindPool), find},

		ioctl.OpMlogAlloc:      {k(kindPool), alloc},
		ioctl.OpMlogFind:       {k(kindPool), find},
		ioctl.OpMlogOpenAppend: {k(kindMlog), target},
		ioctl.OpMlogOpenRead:   {k(kindMlog), target},
		ioctl.OpMlogErase:      {k(kindMlog), func(h ioctl.Handle) ioctl.Message { return &ioctl.MlogErase{Mlog: h} }},
		ioctl.OpAppend:         {k(kindAppender), record},
		ioctl.OpSync:           {k(kindAppender), target},
		ioctl.OpReadNext:       {k(kindReader), func(h ioctl.Handle) ioctl.Message { return &ioctl.ReadNext{Reader: h} }},
		ioctl.OpReadSeek:       {k(kindReader), func(h ioctl.Handle) ioctl.Message { return &ioctl.ReadSeek{Reader: h} }},

		ioctl.OpGrant:  {k(kindMblock, kindMlog), func(h ioctl.Handle) ioctl.Message { return &ioctl.Grant{Object: h} }},
		ioctl.OpRevoke: {k(kindMblock, kindMlog), target},
		ioctl.OpAccept: {k(kindPool), func(h ioctl.Handle) ioctl.Message { return &ioctl.Accept{Pool: h} }},

		ioctl.OpMDCCreate:        {k(kindPool), alloc},
		ioctl.OpMDCOpen:          {k(kindPool), find},
		ioctl.OpMDCDelete:        {k(kindPool), find},
		ioctl.OpMDCAppend:        {k(kindMDC), record},
		ioctl.OpMDCSync:          {k(kindMDC), target},
		ioctl.OpMDCOpenRead:      {k(kindMDC), target},
		ioctl.OpMDCCompactStart:  {k(kindMDC), target},
		ioctl.OpMDCCompactAppend: {k(kindMDC), record},
		ioctl.OpMDCCompactEnd:    {k(kindMDC), target},
		ioctl.OpMDCCompactAbort:  {k(kindMDC), target},
		ioctl.OpMDCUsage:         {k(kindMDC), target},
	}
}

// one opens one handle of each kind.
func (w *raw) one() map[uhandle.Kind]ioctl.Handle {
	w.t.Helper()
	pool := w.openPool()
	o := api.AllocOptions{Capacity: 1 << 20}
	mlog := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: o})
	created, ok := w.ok(ioctl.OpMDCCreate, &ioctl.Alloc{Pool: pool, Options: o}).(*ioctl.MDCCreated)
	if !ok {
		w.t.Fatal("no id of an MDC")
	}
	return map[uhandle.Kind]ioctl.Handle{
		kindPool:     pool,
		kindMblock:   w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: o}),
		kindMlog:     mlog,
		kindAppender: w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: mlog}),
		kindReader:   w.opened(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: mlog}),
		kindMDC:      w.opened(ioctl.OpMDCOpen, &ioctl.Find{Pool: pool, ID: created.ID}),
		kindList:     w.opened(ioctl.OpListOpen, &ioctl.ListOpen{Pool: pool}),
	}
}

// Every operation that takes a handle refuses one that is stale, of another
// kind, another session's, or was never given.
//
// proves S31
func TestBadHandles(t *testing.T) {
	r := newRig(t)
	w, other := r.raw(), r.raw()
	mine, foreign := w.one(), other.one()
	stale := w.one()
	for _, kind := range []uhandle.Kind{kindList, kindReader, kindAppender, kindMDC, kindMblock, kindMlog, kindPool} {
		w.ok(ioctl.OpClose, &ioctl.Target{Handle: stale[kind]})
	}
	table := takers()
	for op := range ioctl.Op(ioctl.NumOps) {
		if !op.Valid() {
			continue
		}
		taker, ok := table[op]
		if !ok {
			if slices.Contains([]ioctl.Op{
				ioctl.OpHello, ioctl.OpCancel, ioctl.OpArena, ioctl.OpArenaMapped, ioctl.OpVersion, ioctl.OpStat,
				ioctl.OpPoolCreate, ioctl.OpPoolActivate, ioctl.OpPoolDeactivate, ioctl.OpPoolDestroy,
				ioctl.OpPoolRename, ioctl.OpPoolSet, ioctl.OpPoolList, ioctl.OpPoolOpen, ioctl.OpPoolScrub,
				ioctl.OpClientList, ioctl.OpHandleList, ioctl.OpEventNext, ioctl.OpRing, ioctl.OpRingClose,
				ioctl.OpScopeList, ioctl.OpScopeSet, ioctl.OpCreditList,
			}, op) {
				continue // they take none
			}
			t.Errorf("%v is not tested", op)
			continue
		}
		refused := func(what string, h ioctl.Handle) {
			t.Helper()
			if _, err := w.ask(op, taker.m(h)); !errors.Is(err, api.EBADF) {
				t.Errorf("%v with %s handle: %v", op, what, err)
			}
		}
		if op != ioctl.OpPoolShow { // which then goes by name
			refused("no", 0)
		}
		for kind := kindPool; kind <= kindList; kind++ {
			if slices.Contains(taker.kinds, kind) {
				refused("a stale", stale[kind])
				refused("a foreign", foreign[kind])
				refused("a never given", mine[kind]+0x40)
				refused("a kindless", mine[kind]&^(0xff<<24))
			} else {
				refused("another kind's", mine[kind])
			}
		}
	}
	for _, h := range []ioctl.Handle{stale[kindMblock], foreign[kindMblock], mine[kindReader], 0} {
		_, err := w.ask(ioctl.OpCommitMany, &ioctl.CommitMany{Pool: mine[kindPool], Objects: []ioctl.Handle{mine[kindMblock], h}})
		want(t, api.EBADF, err)
	}
	// Nobody's live handles were touched.
	for _, s := range []struct {
		w       *raw
		handles map[uhandle.Kind]ioctl.Handle
	}{{w, mine}, {other, foreign}} {
		s.w.ok(ioctl.OpSync, &ioctl.Target{Handle: s.handles[kindAppender]})
		s.w.ok(ioctl.OpListNext, &ioctl.Target{Handle: s.handles[kindList]})
	}
}

// After a reconnection old handles mean nothing, and the client says so.
//
// proves S36
func TestOldHandlesAfterReconnect(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	old := w.one()
	w.conn.Close()
	r.nextReaped(1)
	w = r.raw()
	w.one()
	for kind, h := range old {
		_, err := w.ask(ioctl.OpClose, &ioctl.Target{Handle: h})
		if !errors.Is(err, api.EBADF) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

// References are counted per handle, and a handle ends once.
//
// proves S30
func TestReferences(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	p := r.open(r.dial())
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	again := must[api.Object](t)(b.Get(ctx))
	found := must[api.Mblock](t)(p.Mblock(ctx, b.ID()))
	if i := must[api.ObjectInfo](t)(found.Info(ctx)); i.Refs != 3 {
		t.Errorf("%d references, want 3", i.Refs)
	}
	want(t, api.EBUSY, b.Delete(ctx))
	for _, o := range []api.Object{again, found} {
		if err := o.Put(); err != nil {
			t.Fatal(err)
		}
		want(t, api.EBADF, o.Put())
		_, err := o.Info(ctx)
		want(t, api.EBADF, err)
	}
	if err := b.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	want(t, api.EBADF, b.Put())
	_, err := p.Mblock(ctx, b.ID())
	want(t, api.ENOENT, err)
}

// Another session's uncommitted object is not found, listed, or committed; its
// own finds it although it gave its handle back.
//
// proves S13
func TestUncommittedIsOnesOwn(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	mine, others := r.open(r.dial()), r.open(r.dial())
	b := must[api.Mblock](t)(mine.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	listed := func(p api.Pool) (n int) {
		t.Helper()
		for i, err := range p.Objects(ctx, api.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if i.ID == b.ID() {
				n++
			}
		}
		return n
	}
	_, err := others.Mblock(ctx, b.ID())
	want(t, api.ENOENT, err)
	if a, b := listed(mine), listed(others); a != 1 || b != 0 {
		t.Errorf("listed %d times to its own, %d to others", a, b)
	}
	if err := b.Put(); err != nil {
		t.Fatal(err)
	}
	_, err = others.Mblock(ctx, b.ID())
	want(t, api.ENOENT, err)
	again := must[api.Mblock](t)(mine.Mblock(ctx, b.ID()))
	if err := again.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if n := listed(others); n != 1 {
		t.Errorf("committed, it is listed %d times", n)
	}
	found := must[api.Mblock](t)(others.Mblock(ctx, b.ID()))
	if err := found.Put(); err != nil {
		t.Fatal(err)
	}
}

// An EBUSY says who holds the object.
//
// proves S15
func TestHolders(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	p, q := r.open(r.dial()), r.open(r.dial())
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		must[api.Mblock](t)(q.Mblock(ctx, b.ID()))
	}
	err := b.Delete(ctx)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.EBUSY {
		t.Fatal(err)
	}
	var refs []uint32
	for _, h := range e.Holders {
		if h.PID == 0 {
			t.Errorf("an administrator is not told who: %+v", h)
		}
		refs = append(refs, h.References)
	}
	if slices.Sort(refs); !slices.Equal(refs, []uint32{1, 3}) {
		t.Errorf("holders %+v", e.Holders)
	}
}

// Pools come and go under their clients' feet as they may.
func TestPoolLife(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	c := r.dial()
	_, err := c.CreatePool(ctx, "data", []string{"/dev/x"}, api.CreateOptions{})
	want(t, api.EEXIST, err)
	res := must[api.CreateResult](t)(c.CreatePool(ctx, "dry", []string{"/dev/x"}, api.CreateOptions{DryRun: true}))
	if res.ZoneSize != 65536 || len(res.Drives) != 1 {
		t.Errorf("%+v", res)
	}
	must[api.CreateResult](t)(c.CreatePool(ctx, "cold", []string{"/dev/x", "/dev/y"}, api.CreateOptions{NoActivate: true, Staging: []string{"/dev/z"}}))
	_, err = c.OpenPool(ctx, "cold")
	want(t, api.ENOENT, err)
	info := must[api.PoolInfo](t)(c.ActivatePool(ctx, "uuid of cold", nil, api.ActivateOptions{}))
	if info.Name != "cold" || len(info.Drives) != 3 {
		t.Errorf("%+v", info)
	}
	_, err = c.ActivatePool(ctx, "cold", nil, api.ActivateOptions{})
	want(t, api.EBUSY, err)
	_, err = c.ActivatePool(ctx, "uuid of cold", nil, api.ActivateOptions{})
	want(t, api.EBUSY, err)
	_, err = c.ActivatePool(ctx, "none", nil, api.ActivateOptions{})
	want(t, api.ENOENT, err)

	p := must[api.Pool](t)(c.OpenPool(ctx, "cold"))
	want(t, api.EBUSY, c.DeactivatePool(ctx, "cold"))
	want(t, api.EBUSY, c.DestroyPool(ctx, "cold"))
	want(t, api.EEXIST, c.RenamePool(ctx, "cold", "data"))
	if err := c.RenamePool(ctx, "cold", "warm"); err != nil {
		t.Fatal(err)
	}
	want(t, api.ENOENT, c.RenamePool(ctx, "cold", "hot"))
	if info := must[api.PoolInfo](t)(p.Info(ctx)); info.Name != "warm" {
		t.Errorf("renamed, it is %q", info.Name)
	}
	if err := c.SetPool(ctx, "warm", api.PoolSettings{Mode: new(uint32(0o600))}); err != nil {
		t.Fatal(err)
	}
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	want(t, api.EBUSY, p.Close())
	if err := b.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, api.EBADF, p.Close())
	_, err = p.Info(ctx)
	want(t, api.EBADF, err)
	var names []string
	for _, i := range must[[]api.PoolInfo](t)(c.Pools(ctx)) {
		names = append(names, i.Name)
	}
	if !slices.Equal(names, []string{"data", "warm"}) {
		t.Errorf("pools %q", names)
	}
	if err := c.DeactivatePool(ctx, "warm"); err != nil {
		t.Fatal(err)
	}
	want(t, api.ENOENT, c.DeactivatePool(ctx, "warm"))
	must[api.PoolInfo](t)(c.ActivatePool(ctx, "warm", nil, api.ActivateOptions{}))
	if err := c.DestroyPool(ctx, "warm"); err != nil {
		t.Fatal(err)
	}
	_, err = c.ActivatePool(ctx, "warm", nil, api.ActivateOptions{})
	want(t, api.ENOENT, err)
}
