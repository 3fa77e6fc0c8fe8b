package misuse

import (
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
)

// wire is a session that sends what it likes.
type wire struct {
	t    *testing.T
	conn *net.UnixConn
	tag  uint64
}

func (s *served) wire(t *testing.T) *wire {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: s.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, conn: conn}
	if _, err := w.ask(ioctl.OpHello, &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version}); err != nil {
		t.Fatal(err)
	}
	return w
}

// ask makes a request and returns the answer, or the error that it is.
func (w *wire) ask(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	w.t.Helper()
	w.tag++
	b, err := ioctl.Append(nil, ioctl.Header{Op: op, Tag: w.tag}, m)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.conn.Write(b); err != nil {
		w.t.Fatalf("%v: %v", op, err)
	}
	buf := make([]byte, ioctl.MaxMessage)
	n, err := w.conn.Read(buf)
	if err != nil {
		w.t.Fatalf("%v: %v", op, err)
	}
	h, err := ioctl.ParseHeader(buf[:n])
	if err != nil || h.Tag != w.tag || h.Op != op {
		w.t.Fatalf("%v: an answer of %+v, %v", op, h, err)
	}
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		if err := ioctl.Decode(&e, buf[ioctl.HeaderSize:n]); err != nil {
			w.t.Fatal(err)
		}
		return nil, e.API()
	}
	reply := op.NewReply()
	if err := ioctl.Decode(reply, buf[ioctl.HeaderSize:n]); err != nil {
		w.t.Fatal(err)
	}
	return reply, nil
}

// open makes a request that gives a handle.
func (w *wire) open(op ioctl.Op, m ioctl.Message) ioctl.Handle {
	w.t.Helper()
	reply, err := w.ask(op, m)
	if err != nil {
		w.t.Fatalf("%v: %v", op, err)
	}
	switch r := reply.(type) {
	case *ioctl.Opened:
		return r.Handle
	case *ioctl.AppenderOpened:
		return r.Appender
	}
	w.t.Fatalf("%v gives no handle", op)
	return 0
}

// The kinds of handle.
const (
	aPool     = "pool"
	anMblock  = "mblock"
	aLog      = "mlog"
	anAppend  = "appender"
	aReader   = "reader"
	anMDC     = "mdc"
	aList     = "list"
	anyHandle = "any"
)

// handles opens one of each kind.
func (w *wire) handles() map[string]ioctl.Handle {
	w.t.Helper()
	h := make(map[string]ioctl.Handle)
	h[aPool] = w.open(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "p"})
	o := api.AllocOptions{Capacity: 64 << 10}
	h[anMblock] = w.open(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: h[aPool], Options: o})
	h[aLog] = w.open(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: h[aPool], Options: o})
	if _, err := w.ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: h[aLog]}); err != nil {
		w.t.Fatal(err)
	}
	h[anAppend] = w.open(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: h[aLog]})
	h[aReader] = w.open(ioctl.OpMlogOpenRead, &ioctl.Target{Handle: h[aLog]})
	made, err := w.ask(ioctl.OpMDCCreate, &ioctl.Alloc{Pool: h[aPool], Options: o})
	if err != nil {
		w.t.Fatal(err)
	}
	reply, ok := made.(*ioctl.MDCCreated)
	if !ok {
		w.t.Fatalf("a container's creation is answered with %T", made)
	}
	h[anMDC] = w.open(ioctl.OpMDCOpen, &ioctl.Find{Pool: h[aPool], ID: reply.ID})
	h[aList] = w.open(ioctl.OpListOpen, &ioctl.ListOpen{Pool: h[aPool]})
	return h
}

// uses are all requests that name a handle, with the kinds that they take.
var uses = []struct {
	op    ioctl.Op
	takes []string
	make  func(h ioctl.Handle) ioctl.Message
}{
	{ioctl.OpClose, []string{anyHandle}, target},
	{ioctl.OpPoolShow, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.PoolShow{Pool: h} }},
	{ioctl.OpCommitMany, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.CommitMany{Pool: h} }},
	{ioctl.OpListOpen, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.ListOpen{Pool: h} }},
	{ioctl.OpRootsSet, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.RootsSet{Pool: h} }},
	{ioctl.OpRootsList, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.RootsList{Pool: h} }},
	{ioctl.OpOwnerAdd, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.OwnerAdd{Pool: h, Name: "x"} }},
	{ioctl.OpOwnerList, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.OwnerList{Pool: h} }},
	{ioctl.OpQuotaShow, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.QuotaShow{Pool: h, What: ioctl.QuotaShowClasses} }},
	{ioctl.OpQuotaSet, []string{aPool}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.QuotaSet{Pool: h, Verb: ioctl.QuotaAddOwner, Limit: api.QuotaLimit{Owner: "y"}}
	}},
	{ioctl.OpQuotaClaim, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.QuotaClaim{Pool: h, Verb: ioctl.QuotaExpire} }},
	{ioctl.OpCredit, []string{aPool}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.CreditMessage{Pool: h, Message: credit.Message{Kind: credit.Hello}}
	}},
	{ioctl.OpCreditRevoke, []string{aPool}, findObject},
	{ioctl.OpMblockAlloc, []string{aPool}, newObject},
	{ioctl.OpMblockPut, []string{aPool}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.MblockPut{Pool: h, Data: ioctl.InlinePayload([]byte("data"))}
	}},
	{ioctl.OpMlogAlloc, []string{aPool}, newObject},
	{ioctl.OpMDCCreate, []string{aPool}, newObject},
	{ioctl.OpMblockFind, []string{aPool}, findObject},
	{ioctl.OpMlogFind, []string{aPool}, findObject},
	{ioctl.OpMDCOpen, []string{aPool}, findObject},
	{ioctl.OpMDCDelete, []string{aPool}, findObject},
	{ioctl.OpObjectInfo, []string{anMblock, aLog}, target},
	{ioctl.OpObjectGet, []string{anMblock, aLog}, target},
	{ioctl.OpObjectCommit, []string{anMblock, aLog}, target},
	{ioctl.OpObjectAbort, []string{anMblock, aLog}, target},
	{ioctl.OpObjectDelete, []string{anMblock, aLog}, target},
	{ioctl.OpGrant, []string{anMblock, aLog}, func(h ioctl.Handle) ioctl.Message { return &ioctl.Grant{Object: h, TTL: time.Minute} }},
	{ioctl.OpRevoke, []string{anMblock, aLog}, target},
	{ioctl.OpAccept, []string{aPool}, func(h ioctl.Handle) ioctl.Message { return &ioctl.Accept{Pool: h} }},
	{ioctl.OpMblockWrite, []string{anMblock}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.MblockWrite{Mblock: h, Total: 4, Data: ioctl.InlinePayload([]byte("data"))}
	}},
	{ioctl.OpMblockRead, []string{anMblock}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.MblockRead{Mblock: h, Into: ioctl.Window{Length: 10}}
	}},
	{ioctl.OpMlogOpenAppend, []string{aLog}, target},
	{ioctl.OpMlogOpenRead, []string{aLog}, target},
	{ioctl.OpMlogErase, []string{aLog}, func(h ioctl.Handle) ioctl.Message { return &ioctl.MlogErase{Mlog: h} }},
	{ioctl.OpAppend, []string{anAppend}, appendTo},
	{ioctl.OpSync, []string{anAppend}, target},
	{ioctl.OpReadNext, []string{aReader}, func(h ioctl.Handle) ioctl.Message {
		return &ioctl.ReadNext{Reader: h, Into: ioctl.Window{Length: 10}}
	}},
	{ioctl.OpReadSeek, []string{aReader}, func(h ioctl.Handle) ioctl.Message { return &ioctl.ReadSeek{Reader: h} }},
	{ioctl.OpMDCAppend, []string{anMDC}, appendTo},
	{ioctl.OpMDCSync, []string{anMDC}, target},
	{ioctl.OpMDCOpenRead, []string{anMDC}, target},
	{ioctl.OpMDCCompactStart, []string{anMDC}, target},
	{ioctl.OpMDCCompactAppend, []string{anMDC}, appendTo},
	{ioctl.OpMDCCompactEnd, []string{anMDC}, target},
	{ioctl.OpMDCCompactAbort, []string{anMDC}, target},
	{ioctl.OpMDCUsage, []string{anMDC}, target},
	{ioctl.OpListNext, []string{aList}, target},
}

func target(h ioctl.Handle) ioctl.Message { return &ioctl.Target{Handle: h} }

func newObject(h ioctl.Handle) ioctl.Message {
	return &ioctl.Alloc{Pool: h, Options: api.AllocOptions{Capacity: 1}}
}

func findObject(h ioctl.Handle) ioctl.Message { return &ioctl.Find{Pool: h, ID: noSuchBlock} }

func appendTo(h ioctl.Handle) ioctl.Message {
	return &ioctl.AppendRecord{To: h, Data: ioctl.InlinePayload([]byte("record"))}
}

// withoutHandle are the requests that name none.
var withoutHandle = []ioctl.Op{
	ioctl.OpHello, ioctl.OpCancel, ioctl.OpArena, ioctl.OpArenaMapped, ioctl.OpVersion, ioctl.OpStat,
	ioctl.OpPoolCreate, ioctl.OpPoolActivate, ioctl.OpPoolDeactivate, ioctl.OpPoolDestroy, ioctl.OpPoolRename,
	ioctl.OpPoolSet, ioctl.OpPoolScrub, ioctl.OpPoolList, ioctl.OpPoolOpen, ioctl.OpClientList, ioctl.OpHandleList, ioctl.OpEventNext,
	ioctl.OpScopeList, ioctl.OpScopeSet, ioctl.OpCreditList,
	ioctl.OpRing, ioctl.OpRingClose,
}

// proves S31: a handle that is stale, of another kind, another session's, or was
// never given, is EBADF to every request, and the request does nothing.
func TestHandles(t *testing.T) {
	t.Parallel()
	known := slices.Clone(withoutHandle)
	for _, u := range uses {
		known = append(known, u.op)
	}
	for op := range ioctl.Op(ioctl.NumOps) {
		if op.Valid() && !slices.Contains(known, op) {
			t.Errorf("the table does not know the operation %v", op)
		}
	}
	var s *served
	here := backend{"daemon", func(w *world) func() {
		end := daemon(w)
		s = &served{socket: w.socket}
		return end
	}}
	here.world(t, func(w *world) {
		mine := s.wire(t)
		given := mine.handles()
		theirs := s.wire(t).handles()
		stale := mine.open(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "p"})
		if _, err := mine.ask(ioctl.OpClose, target(stale)); err != nil {
			t.Fatal(err)
		}
		before := w.snapshot()
		refuse := func(op ioctl.Op, what string, m ioctl.Message) {
			t.Helper()
			if _, err := mine.ask(op, m); !isOne(err, []api.Code{api.EBADF}) {
				t.Errorf("%v with %s: %v; want EBADF", op, what, err)
			}
		}
		for _, u := range uses {
			if u.op != ioctl.OpPoolShow { // to which none means the name
				refuse(u.op, "no handle", u.make(0))
			}
			refuse(u.op, "a stale handle", u.make(stale))
			refuse(u.op, "the highest number", u.make(1<<64-1))
			for _, kind := range slices.Sorted(maps.Keys(given)) {
				refuse(u.op, "another session's "+kind, u.make(theirs[kind]))
				refuse(u.op, "the next of its slot of "+kind, u.make(given[kind]+1<<32))
				if !slices.Contains(u.takes, anyHandle) && !slices.Contains(u.takes, kind) {
					refuse(u.op, kind, u.make(given[kind]))
				}
			}
		}
		for _, bad := range []ioctl.Handle{0, stale, given[aPool], given[aReader], theirs[anMblock]} {
			refuse(ioctl.OpCommitMany, "a bad handle among good ones", &ioctl.CommitMany{Pool: given[aPool], Objects: []ioctl.Handle{given[anMblock], bad}})
		}
		w.unchanged(before, "a bad handle")
	})
}
