package server

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// newEngineRig is a rig over the real engine, with the pool "data" on a regular
// file of 64 MiB.
func newEngineRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, driveFile(t, 64<<20), func(o *Options) { o.Backend = Engine{} })
}

// number draws one that is often extreme.
func number(rng *rand.Rand) uint64 {
	extreme := []uint64{
		0, 1, 4095, 4096, 4097, 1 << 16, 1 << 20, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40,
		1 << 56, math.MaxInt64 - 4095, math.MaxInt64, 1 << 63, math.MaxUint64 - 4095, math.MaxUint64,
	}
	v := extreme[rng.IntN(len(extreme))]
	if rng.IntN(3) == 0 {
		v += rng.Uint64N(5) - 2
	}
	return v
}

// handleFor draws one of the handles, most often of a kind that the operation
// takes.
func handleFor(rng *rand.Rand, op ioctl.Op, handles []ioctl.Handle) ioctl.Handle {
	h := handles[rng.IntN(len(handles))]
	if rng.IntN(10) == 0 {
		return h
	}
	kinds := takers()[op].kinds
	for _, i := range rng.Perm(len(handles)) {
		if slices.Contains(kinds, uhandle.Handle(handles[i]).Kind()) {
			return handles[i]
		}
	}
	return h
}

// wellFormed makes a request with fields of any value and handles that are
// often real.
func wellFormed(rng *rand.Rand, op ioctl.Op, handles []ioctl.Handle, ids []layout.ObjectID) ioctl.Message {
	h := handleFor(rng, op, handles)
	id := ids[rng.IntN(len(ids))]
	if rng.IntN(5) == 0 {
		id = layout.ObjectID(number(rng))
	}
	options := api.AllocOptions{
		Class: api.Class(rng.IntN(3) * rng.IntN(128)), Fallback: rng.IntN(2) == 0, Capacity: int64(number(rng)),
		Owner: uint32(number(rng) * uint64(rng.IntN(2))), Tag: number(rng), UseSpare: rng.IntN(2) == 0,
	}
	if rng.IntN(2) == 0 {
		options = api.AllocOptions{Capacity: int64(1 + rng.IntN(1<<20))}
	}
	window := ioctl.Window{Arena: 1, Offset: uint32(number(rng)), Length: uint32(number(rng))}
	if rng.IntN(2) == 0 {
		window = ioctl.Window{Arena: uint16(rng.IntN(2))}
		window.Length = uint32(rng.IntN(ioctl.MaxInline))
	}
	payload := ioctl.Payload{Window: window}
	if window.Arena == 0 {
		payload = ioctl.InlinePayload(make([]byte, rng.IntN(3)*rng.IntN(5000)))
	}
	target := &ioctl.Target{Handle: h}
	alloc := &ioctl.Alloc{Pool: h, Options: options}
	find := &ioctl.Find{Pool: h, ID: id}
	switch op {
	case ioctl.OpMblockAlloc:
		if rng.IntN(4) == 0 {
			alloc.ID = id
		}
		return alloc
	case ioctl.OpMlogAlloc, ioctl.OpMDCCreate:
		return alloc
	case ioctl.OpMblockFind, ioctl.OpMlogFind, ioctl.OpMDCOpen, ioctl.OpMDCDelete:
		return find
	case ioctl.OpMblockWrite:
		return &ioctl.MblockWrite{Mblock: h, Total: number(rng), Data: payload}
	case ioctl.OpMblockPut:
		return &ioctl.MblockPut{Pool: h, Options: options, Data: payload}
	case ioctl.OpMblockRead:
		return &ioctl.MblockRead{Mblock: h, Offset: int64(number(rng)), Into: window}
	case ioctl.OpMlogErase:
		return &ioctl.MlogErase{Mlog: h, MinGeneration: number(rng)}
	case ioctl.OpAppend, ioctl.OpMDCAppend, ioctl.OpMDCCompactAppend:
		return &ioctl.AppendRecord{To: h, Sync: rng.IntN(2) == 0, Data: payload}
	case ioctl.OpReadNext:
		return &ioctl.ReadNext{Reader: h, Rewind: rng.IntN(4) == 0, Into: window}
	case ioctl.OpReadSeek:
		return &ioctl.ReadSeek{Reader: h, Record: number(rng), Rewind: rng.IntN(4) == 0}
	case ioctl.OpRootsSet:
		b, err := ioctl.AppendRoots(nil, []api.Root{{Name: "a", ID: id}, {Name: string(make([]byte, rng.IntN(80))), ID: id}})
		if err != nil {
			panic(err)
		}
		return &ioctl.RootsSet{Pool: h, Roots: ioctl.InlinePayload(b)}
	case ioctl.OpCommitMany:
		return &ioctl.CommitMany{Pool: h, Objects: []ioctl.Handle{h, handles[rng.IntN(len(handles))]}}
	case ioctl.OpRootsList:
		return &ioctl.RootsList{Pool: h}
	case ioctl.OpOwnerAdd:
		return &ioctl.OwnerAdd{Pool: h, Parent: uint32(number(rng)), Name: string(make([]byte, rng.IntN(80)))}
	case ioctl.OpOwnerList:
		return &ioctl.OwnerList{Pool: h, From: uint32(number(rng))}
	case ioctl.OpQuotaShow:
		return &ioctl.QuotaShow{Pool: h, What: ioctl.QuotaWhat(number(rng)), From: uint32(number(rng))}
	case ioctl.OpQuotaSet:
		return &ioctl.QuotaSet{Pool: h, Verb: ioctl.QuotaSetVerb(number(rng)), Class: api.QuotaClass{Name: "x", Min: 1, Step: 1}}
	case ioctl.OpQuotaClaim:
		return &ioctl.QuotaClaim{Pool: h, Verb: ioctl.QuotaClaimVerb(number(rng)), Owner: "a", Amounts: []api.QuotaAmount{{Class: "x", N: int64(number(rng))}}}
	case ioctl.OpPoolShow:
		return &ioctl.PoolShow{Pool: h, FirstDrive: uint32(number(rng))}
	case ioctl.OpStat:
		return &ioctl.StatAsk{Pool: "data", FirstOp: uint16(number(rng)), FirstDrive: uint32(number(rng))}
	case ioctl.OpListOpen:
		return &ioctl.ListOpen{Pool: h, Filter: api.Filter{Kind: layout.Kind(rng.IntN(4)), State: api.State(rng.IntN(5))}}
	case ioctl.OpRingClose:
		return &ioctl.RingClose{Ring: uint16(number(rng))}
	case ioctl.OpVersion:
		return &ioctl.Empty{}
	case ioctl.OpClose, ioctl.OpObjectInfo, ioctl.OpObjectGet, ioctl.OpObjectCommit, ioctl.OpObjectAbort,
		ioctl.OpObjectDelete, ioctl.OpListNext, ioctl.OpMlogOpenAppend, ioctl.OpMlogOpenRead, ioctl.OpSync,
		ioctl.OpMDCSync, ioctl.OpMDCOpenRead, ioctl.OpMDCCompactStart, ioctl.OpMDCCompactEnd,
		ioctl.OpMDCCompactAbort, ioctl.OpMDCUsage, ioctl.OpRevoke:
		return target
	case ioctl.OpGrant:
		return &ioctl.Grant{Object: h, TTL: time.Duration(number(rng))}
	case ioctl.OpAccept:
		return &ioctl.Accept{Pool: h}
	case ioctl.OpHello, ioctl.OpCancel, ioctl.OpArena, ioctl.OpArenaMapped, ioctl.OpPoolCreate, ioctl.OpPoolActivate,
		ioctl.OpPoolDeactivate, ioctl.OpPoolDestroy, ioctl.OpPoolRename, ioctl.OpPoolSet, ioctl.OpPoolList,
		ioctl.OpPoolOpen, ioctl.OpPoolScrub, ioctl.OpClientList, ioctl.OpHandleList, ioctl.OpEventNext,
		ioctl.OpScopeList, ioctl.OpScopeSet, ioctl.OpCreditList,
		ioctl.OpCredit, ioctl.OpCreditRevoke, // which nothing answers, or after a deadline; see test/credits
		ioctl.OpRing: // of which any value in its memory may end the session
	}
	return nil
}

// No values within well-formed requests bring the daemon with its real engine
// down, and nothing is left of what they made.
//
// proves S43
func TestExtremeValues(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	r := newEngineRig(t)
	ctx := context.Background()
	for session := range 6 {
		w := r.raw()
		pool := w.openPool()
		id, _, _ := w.arena(1 << 20)
		w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
		handles, ids := []ioctl.Handle{pool}, []layout.ObjectID{mblockID(1)}
		codes := map[api.Code]int{}
		for range 1500 {
			op := ioctl.Op(rng.IntN(ioctl.NumOps))
			m := wellFormed(rng, op, handles, ids)
			if m == nil || op == ioctl.OpClose && rng.IntN(4) > 0 {
				continue
			}
			reply, err := w.ask(op, m)
			if errors.Is(err, api.EUNKNOWN) || errors.Is(err, api.EROFS) {
				t.Fatalf("session %d: %v of %+v: the pool is spoiled: %v", session, op, m, err)
			}
			if err != nil {
				codes[api.CodeOf(err)]++
				continue
			}
			codes[0]++
			switch reply := reply.(type) {
			case *ioctl.Opened:
				handles = append(handles, reply.Handle)
				if reply.ID != 0 {
					ids = append(ids, reply.ID)
				}
			case *ioctl.AppenderOpened:
				handles = append(handles, reply.Appender)
			case *ioctl.MDCCreated:
				ids = append(ids, reply.ID)
			}
			if len(handles) > 60 {
				handles = append(handles[:1], handles[30:]...)
			}
		}
		t.Logf("session %d: %v", session, codes)
		w.conn.Close()
		r.nextReaped(session + 1)
	}
	p := r.open(r.dial())
	for o, err := range p.Objects(ctx, api.Filter{State: api.StateUncommitted}) {
		t.Errorf("%+v is left, %v", o, err)
	}
	info := must[api.PoolInfo](t)(p.Info(ctx))
	if info.Space.Uncommitted != 0 || info.State != "active" {
		t.Errorf("%+v", info)
	}
	// The pool still works.
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 8192}))
	if _, err := b.Write(ctx, make([]byte, 8192)); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// A client that changes its memory while the daemon writes or reads it harms
// its own object only, which then is ECORRUPT or holds some mixture.
//
// proves S11
func TestScribbler(t *testing.T) {
	r := newEngineRig(t)
	ctx := context.Background()
	good := r.open(r.dial())
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	b := must[api.Mblock](t)(good.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))}))
	if _, err := b.Write(ctx, data); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	w := r.raw()
	pool := w.openPool()
	id, mem, _ := w.arena(1 << 20)
	w.ok(ioctl.OpArenaMapped, &ioctl.ArenaMapped{Arena: id})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				mem[i*64%len(mem)]++
			}
		}
	}()
	whole := ioctl.Window{Arena: id, Length: uint32(len(mem))}
	outcomes := map[api.Code]int{}
	for range 10 {
		m := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
		w.ok(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: m, Data: ioctl.Payload{Window: whole}})
		w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: m})
		_, err := w.ask(ioctl.OpMblockRead, &ioctl.MblockRead{Mblock: m, Into: whole})
		if err != nil && !errors.Is(err, api.ECORRUPT) {
			t.Errorf("read back: %v", err)
		}
		outcomes[api.CodeOf(err)]++
		l := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
		w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
		app := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
		record := ioctl.Window{Arena: id, Length: 1 << 19}
		w.ok(ioctl.OpAppend, &ioctl.AppendRecord{To: app, Sync: true, Data: ioctl.Payload{Window: record}})
		reader := w.opened(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: l})
		_, err = w.ask(ioctl.OpReadNext, &ioctl.ReadNext{Reader: reader, Into: record})
		if err != nil {
			// A log's bytes are copied before they are summed.
			t.Errorf("a record read back: %v", err)
		}
		w.ok(ioctl.OpClose, &ioctl.Target{Handle: reader})
		w.ok(ioctl.OpClose, &ioctl.Target{Handle: app})
		w.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: l})
		w.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: m})
	}
	close(stop)
	<-stopped
	t.Logf("outcomes %v", outcomes)
	var got bytes.Buffer
	if _, err := b.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("somebody else's object: %d bytes, %v", got.Len(), err)
	}
	if err := b.Delete(ctx); err != nil {
		t.Error(err)
	}
}

// What the engine finds wrong on a drive is told with the pool's name, once in a
// while however often it is seen.
func TestCorruptionIsTold(t *testing.T) {
	r := newEngineRig(t)
	ctx := context.Background()
	c := r.dial()
	p := r.open(c)
	if err := c.RenamePool(ctx, "data", "renamed"); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("what is written here is found again"), 1000)
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))}))
	if _, err := b.Write(ctx, data); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	path := must[api.PoolInfo](t)(p.Info(ctx)).Drives[0].Path
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := bytes.Index(must[[]byte](t)(os.ReadFile(path)), data[:4096])
	if at < 0 {
		t.Fatal("the data is not on the drive")
	}
	if _, err := f.WriteAt([]byte("!"), int64(at+5000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := b.ReadAt(make([]byte, len(data)), 0)
		want(t, api.ECORRUPT, err)
	}
	var told []ioctl.Event
	for _, e := range r.raw().events(ioctl.EventNext{}).Events {
		if e.Type == ioctl.EventCorruption {
			told = append(told, e)
		}
	}
	if len(told) != 1 || told[0].Pool != "renamed" || told[0].Object != b.ID() || told[0].Device != path ||
		told[0].Offset != int64(at+4096) || told[0].Text == "" {
		t.Errorf("%+v; want one of %v at %d of %s", told, b.ID(), at+4096, path)
	}
}

// proves S1: a drive of an active pool is refused at once, and the error says whose
// it is, by whatever path the drive is named.
func TestCreateOverAnActivePool(t *testing.T) {
	r := newEngineRig(t)
	ctx := context.Background()
	p := r.srv.pools.list()[0]
	info := must[api.PoolInfo](t)(p.pool.Info(ctx))
	link := filepath.Join(t.TempDir(), "link")
	path := must[string](t)(filepath.Abs(info.Drives[0].Path))
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, o := range []api.CreateOptions{{}, {Force: true}, {DryRun: true}} {
		_, err := r.srv.CreatePool(ctx, "second", []string{link}, o)
		if !errors.Is(err, api.EBUSY) || !strings.Contains(err.Error(), `active pool "data"`) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
