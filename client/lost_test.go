package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// scene is what there is when a connection breaks.
type scene struct {
	t *testing.T
	f *fake
	c *Conn
	p api.Pool
	// Mblocks: one committed, of data; one that is not.
	old, fresh api.Mblock
	data       []byte
	// Mlogs, the same.
	log, freshLog api.Mlog
	app           api.Appender
	reader        api.LogReader
	mdc           api.MDC
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return newSceneOn(t, newFake(t))
}

// newRingScene is newScene with a daemon that has rings, and a ring.
func newRingScene(t *testing.T) *scene {
	t.Helper()
	f := newFake(t)
	f.rings = true
	s := newSceneOn(t, f)
	s.c.ringed(t)
	return s
}

func newSceneOn(t *testing.T, f *fake) *scene {
	t.Helper()
	ctx := t.Context()
	s := &scene{t: t, f: f, c: f.connect(Options{}), data: bytes.Repeat([]byte("0123456789abcdef"), 8192)}
	s.p = must(s.c.OpenPool(ctx, "data"))
	s.old = must(s.p.AllocMblock(ctx, api.AllocOptions{}))
	must(s.old.Write(ctx, s.data))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.old.Commit(ctx))
	s.fresh = must(s.p.AllocMblock(ctx, api.AllocOptions{}))
	s.log = must(s.p.AllocMlog(ctx, api.AllocOptions{}))
	check(s.log.Commit(ctx))
	s.freshLog = must(s.p.AllocMlog(ctx, api.AllocOptions{}))
	s.app = must(s.log.OpenAppend(ctx))
	must(s.app.Append(ctx, []byte("first"), true))
	must(s.app.Append(ctx, []byte("second"), false))
	s.reader = must(s.log.OpenRead(ctx))
	s.mdc = must(s.p.OpenMDC(ctx, s.log.ID()))
	return s
}

// fits says whether an error is what a word says: "ok", a code, or
// "EUNKNOWN n", which has Records n.
func fits(err error, word string) bool {
	if word == "ok" {
		return err == nil
	}
	code, records, some := strings.Cut(word, " ")
	if err == nil || api.CodeOf(err).Error() != code {
		return false
	}
	var e *api.Error
	return !some || errors.As(err, &e) && fmt.Sprint(e.Records) == records
}

// lostCall is a call and what it returns if its connection breaks.
type lostCall struct {
	name string
	op   ioctl.Op
	call func(ctx context.Context, s *scene) error
	// Before the request; after it but before it was done; done and not
	// answered. After the answer all is well.
	before, asked, done string
	// The handles that it may have ended, by what else would.
	ends []string
}

// lostCalls has every call of the library.
var lostCalls = []lostCall{
	// Who only asks gets an answer.
	{"version", ioctl.OpVersion, func(ctx context.Context, s *scene) error { _, err := s.c.Version(ctx); return err }, "ok", "ok", "ok", nil},
	{"stat", ioctl.OpStat, func(ctx context.Context, s *scene) error { _, err := s.c.Stat(ctx, ""); return err }, "ok", "ok", "ok", nil},
	{"pools", ioctl.OpPoolList, func(ctx context.Context, s *scene) error { _, err := s.c.Pools(ctx); return err }, "ok", "ok", "ok", nil},
	{"pools, one", ioctl.OpPoolShow, func(ctx context.Context, s *scene) error { _, err := s.c.Pools(ctx); return err }, "ok", "ok", "ok", nil},
	{"clients", ioctl.OpClientList, func(ctx context.Context, s *scene) error { _, err := s.c.Clients(ctx, 0); return err }, "ok", "ok", "ok", nil},
	{"handles", ioctl.OpHandleList, func(ctx context.Context, s *scene) error { return drain(s.c.Handles(ctx, "", 0)) }, "ok", "ok", "ok", nil},
	{"scopes", ioctl.OpScopeList, func(ctx context.Context, s *scene) error { return drain(s.c.Scopes(ctx, "")) }, "ok", "ok", "ok", nil},
	{"set scope", ioctl.OpScopeSet, func(ctx context.Context, s *scene) error {
		_, err := s.c.SetScope(ctx, "client", []ScopeLimit{{Kind: "tasks", Limit: "1000"}})
		return err
	}, "ok", "ok", "ok", nil},
	{"open pool", ioctl.OpPoolOpen, func(ctx context.Context, s *scene) error { _, err := s.c.OpenPool(ctx, "data"); return err }, "ok", "ok", "ok", nil},
	{"open pool, its identity", ioctl.OpPoolShow, func(ctx context.Context, s *scene) error { _, err := s.c.OpenPool(ctx, "data"); return err }, "ok", "ok", "ok", nil},
	{"pool info", ioctl.OpPoolShow, func(ctx context.Context, s *scene) error { _, err := s.p.Info(ctx); return err }, "ok", "ok", "ok", nil},
	{"find mblock", ioctl.OpMblockFind, func(ctx context.Context, s *scene) error { _, err := s.p.Mblock(ctx, s.old.ID()); return err }, "ok", "ok", "ok", nil},
	{"find mlog", ioctl.OpMlogFind, func(ctx context.Context, s *scene) error { _, err := s.p.Mlog(ctx, s.log.ID()); return err }, "ok", "ok", "ok", nil},
	{"open MDC", ioctl.OpMDCOpen, func(ctx context.Context, s *scene) error { _, err := s.p.OpenMDC(ctx, s.log.ID()); return err }, "ok", "ECONNRESET", "ECONNRESET", nil},
	{"roots", ioctl.OpRootsList, func(ctx context.Context, s *scene) error { _, err := s.p.Roots(ctx); return err }, "ok", "ok", "ok", nil},
	{"owners", ioctl.OpOwnerList, func(ctx context.Context, s *scene) error { _, err := s.p.Owners(ctx); return err }, "ok", "ok", "ok", nil},
	{"list", ioctl.OpListOpen, func(ctx context.Context, s *scene) error { return drain(s.p.Objects(ctx, api.Filter{})) }, "ok", "ok", "ok", nil},
	{"list, first page", ioctl.OpListNext, func(ctx context.Context, s *scene) error { return drain(s.p.Objects(ctx, api.Filter{})) }, "ok", "ok", "ok", nil},
	{"info", ioctl.OpObjectInfo, func(ctx context.Context, s *scene) error { _, err := s.old.Info(ctx); return err }, "EBADF", "ok", "ok", nil},
	{"info of an uncommitted one", ioctl.OpObjectInfo, func(ctx context.Context, s *scene) error { _, err := s.fresh.Info(ctx); return err }, "EBADF", "EBADF", "EBADF", nil},
	{"get", ioctl.OpObjectGet, func(ctx context.Context, s *scene) error { _, err := s.log.Get(ctx); return err }, "EBADF", "ok", "ok", nil},
	{"get of an uncommitted one", ioctl.OpObjectGet, func(ctx context.Context, s *scene) error { _, err := s.fresh.Get(ctx); return err }, "EBADF", "EBADF", "EBADF", nil},
	{"read", ioctl.OpMblockRead, func(ctx context.Context, s *scene) error { return s.read(ctx, 100) }, "EBADF", "ok", "ok", nil},
	{"read, large", ioctl.OpMblockRead, func(ctx context.Context, s *scene) error { return s.read(ctx, 100_000) }, "EBADF", "ok", "ok", nil},
	{"read all", ioctl.OpMblockRead, func(_ context.Context, s *scene) error { return s.readAll() }, "EBADF", "ok", "ok", nil},
	{"read of an uncommitted one", ioctl.OpMblockRead, func(ctx context.Context, s *scene) error {
		_, err := s.fresh.ReadAtContext(ctx, make([]byte, 10), 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}, "EBADF", "EBADF", "EBADF", nil},

	// Who gives back what is gone need not care.
	{"put", ioctl.OpClose, func(_ context.Context, s *scene) error { return s.old.Put() }, "ok", "ok", "ok", []string{"put"}},
	{"close pool", ioctl.OpClose, func(_ context.Context, s *scene) error { return s.p.Close() }, "ok", "ok", "ok", []string{"close pool"}},
	{"close reader", ioctl.OpClose, func(_ context.Context, s *scene) error { return s.reader.Close() }, "ok", "ok", "ok", []string{"close reader"}},
	{"usage", ioctl.OpMDCUsage, func(_ context.Context, s *scene) error { s.mdc.Usage(); return nil }, "ok", "ok", "ok", nil},

	// What the library can look after.
	{"commit", ioctl.OpObjectCommit, func(ctx context.Context, s *scene) error { return s.fresh.Commit(ctx) }, "EBADF", "ECONNRESET", "ok", nil},
	{"commit, log", ioctl.OpObjectCommit, func(ctx context.Context, s *scene) error { return s.freshLog.Commit(ctx) }, "EBADF", "ECONNRESET", "ok", nil},
	{"commit of a committed one", ioctl.OpObjectCommit, func(ctx context.Context, s *scene) error { return s.old.Commit(ctx) }, "EBADF", "ok", "ok", nil},
	{"commit many", ioctl.OpCommitMany, func(ctx context.Context, s *scene) error {
		return s.p.CommitMany(ctx, []api.Object{s.fresh, s.freshLog}, []api.Root{{Name: "r", ID: s.fresh.ID()}})
	}, "EBADF", "ECONNRESET", "ok", nil},
	{"set roots", ioctl.OpRootsSet, func(ctx context.Context, s *scene) error {
		return s.p.SetRoots(ctx, []api.Root{{Name: "r", ID: s.old.ID()}})
	}, "ok", "EUNKNOWN", "ok", nil},
	{"abort", ioctl.OpObjectAbort, func(ctx context.Context, s *scene) error { return s.fresh.Abort(ctx) }, "EBADF", "ok", "ok", []string{"put fresh"}},
	{"abort of a committed one", ioctl.OpObjectAbort, func(ctx context.Context, s *scene) error {
		if err := s.old.Abort(ctx); !errors.Is(err, api.ESTATE) {
			return err
		}
		return nil
	}, "EBADF", "ok", "ok", nil},
	{"delete", ioctl.OpObjectDelete, func(ctx context.Context, s *scene) error { return s.old.Delete(ctx) }, "EBADF", "ECONNRESET", "ok", []string{"put"}},
	{"delete, log", ioctl.OpObjectDelete, func(ctx context.Context, s *scene) error { return s.log.Delete(ctx) }, "EBADF", "ECONNRESET", "ok", []string{"put log"}},

	// What has left nothing.
	{"alloc mblock", ioctl.OpMblockAlloc, func(ctx context.Context, s *scene) error {
		_, err := s.p.AllocMblock(ctx, api.AllocOptions{})
		return err
	}, "ok", "ECONNRESET", "ECONNRESET", nil},
	{"alloc mlog", ioctl.OpMlogAlloc, func(ctx context.Context, s *scene) error {
		_, err := s.p.AllocMlog(ctx, api.AllocOptions{})
		return err
	}, "ok", "ECONNRESET", "ECONNRESET", nil},
	{"realloc", ioctl.OpMblockAlloc, func(ctx context.Context, s *scene) error {
		_, err := s.p.ReallocMblock(ctx, layout.NewObjectID(layout.KindMblock, 99), api.AllocOptions{})
		return err
	}, "ok", "ECONNRESET", "ECONNRESET", nil},
	{"write", ioctl.OpMblockWrite, func(ctx context.Context, s *scene) error { _, err := s.fresh.Write(ctx, s.data[:10]); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"write, large", ioctl.OpMblockWrite, func(ctx context.Context, s *scene) error { _, err := s.fresh.Write(ctx, s.data); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"grant", ioctl.OpGrant, func(ctx context.Context, s *scene) error { _, err := s.fresh.Grant(ctx, time.Minute); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"revoke", ioctl.OpRevoke, func(ctx context.Context, s *scene) error { return s.freshLog.Revoke(ctx) }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"open for append", ioctl.OpMlogOpenAppend, func(ctx context.Context, s *scene) error { _, err := s.log.OpenAppend(ctx); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"open for read", ioctl.OpMlogOpenRead, func(ctx context.Context, s *scene) error { _, err := s.log.OpenRead(ctx); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"next record", ioctl.OpReadNext, func(ctx context.Context, s *scene) error {
		_, err := s.reader.Next(ctx, make([]byte, 10))
		if err == io.EOF { //nolint:errorlint // Next returns it bare
			err = nil
		}
		return err
	}, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"seek", ioctl.OpReadSeek, func(ctx context.Context, s *scene) error { return s.reader.Seek(ctx, 1) }, "EBADF", "ECONNRESET", "ECONNRESET", nil},
	{"open MDC for read", ioctl.OpMDCOpenRead, func(ctx context.Context, s *scene) error { _, err := s.mdc.OpenRead(ctx); return err }, "EBADF", "ECONNRESET", "ECONNRESET", nil},

	// What may have been done or not.
	{"append", ioctl.OpAppend, func(ctx context.Context, s *scene) error { _, err := s.app.Append(ctx, s.data[:10], true); return err }, "EBADF", "EUNKNOWN 2", "EUNKNOWN 2", nil},
	{"append, large", ioctl.OpAppend, func(ctx context.Context, s *scene) error { _, err := s.app.Append(ctx, s.data, false); return err }, "EBADF", "EUNKNOWN 2", "EUNKNOWN 2", nil},
	{"sync", ioctl.OpSync, func(ctx context.Context, s *scene) error { return s.app.Sync(ctx) }, "EBADF", "EUNKNOWN 2", "EUNKNOWN 2", nil},
	{"close appender", ioctl.OpClose, func(ctx context.Context, s *scene) error { return s.app.Close(ctx) }, "EBADF", "EUNKNOWN 2", "EUNKNOWN 2", nil},
	{"accept", ioctl.OpAccept, func(ctx context.Context, s *scene) error { _, err := s.p.Accept(ctx, api.Token{1}); return err }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"erase", ioctl.OpMlogErase, func(ctx context.Context, s *scene) error { return s.log.Erase(ctx, 0) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"append to MDC", ioctl.OpMDCAppend, func(ctx context.Context, s *scene) error { return s.mdc.Append(ctx, s.data[:10], true) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"sync MDC", ioctl.OpMDCSync, func(ctx context.Context, s *scene) error { return s.mdc.Sync(ctx) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"compact", ioctl.OpMDCCompactStart, func(ctx context.Context, s *scene) error { return s.mdc.CompactStart(ctx) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"compact append", ioctl.OpMDCCompactAppend, func(ctx context.Context, s *scene) error { return s.mdc.CompactAppend(ctx, s.data[:10]) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"compact end", ioctl.OpMDCCompactEnd, func(ctx context.Context, s *scene) error { return s.mdc.CompactEnd(ctx) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"compact abort", ioctl.OpMDCCompactAbort, func(ctx context.Context, s *scene) error { return s.mdc.CompactAbort(ctx) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"close MDC", ioctl.OpClose, func(ctx context.Context, s *scene) error { return s.mdc.Close(ctx) }, "EBADF", "EUNKNOWN", "EUNKNOWN", nil},
	{"put mblock", ioctl.OpMblockPut, func(ctx context.Context, s *scene) error {
		_, err := s.p.PutMblock(ctx, api.AllocOptions{}, s.data[:10])
		return err
	}, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"put mblock, large", ioctl.OpMblockPut, func(ctx context.Context, s *scene) error {
		_, err := s.p.PutMblock(ctx, api.AllocOptions{}, s.data)
		return err
	}, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"create MDC", ioctl.OpMDCCreate, func(ctx context.Context, s *scene) error {
		_, err := s.p.CreateMDC(ctx, api.AllocOptions{})
		return err
	}, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"delete MDC", ioctl.OpMDCDelete, func(ctx context.Context, s *scene) error { return s.p.DeleteMDC(ctx, s.log.ID()) }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"add owner", ioctl.OpOwnerAdd, func(ctx context.Context, s *scene) error { _, err := s.p.AddOwner(ctx, "o", 0); return err }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"create pool", ioctl.OpPoolCreate, func(ctx context.Context, s *scene) error {
		_, err := s.c.CreatePool(ctx, "p", nil, api.CreateOptions{})
		return err
	}, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"activate pool", ioctl.OpPoolActivate, func(ctx context.Context, s *scene) error {
		_, err := s.c.ActivatePool(ctx, "p", nil, api.ActivateOptions{})
		return err
	}, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"deactivate pool", ioctl.OpPoolDeactivate, func(ctx context.Context, s *scene) error { return s.c.DeactivatePool(ctx, "p") }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"destroy pool", ioctl.OpPoolDestroy, func(ctx context.Context, s *scene) error { return s.c.DestroyPool(ctx, "p") }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"rename pool", ioctl.OpPoolRename, func(ctx context.Context, s *scene) error { return s.c.RenamePool(ctx, "p", "q") }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
	{"set pool", ioctl.OpPoolSet, func(ctx context.Context, s *scene) error { return s.c.SetPool(ctx, "p", api.PoolSettings{}) }, "ok", "EUNKNOWN", "EUNKNOWN", nil},
}

func (s *scene) read(ctx context.Context, n int) error {
	p := make([]byte, n)
	if _, err := s.old.ReadAtContext(ctx, p, 5); err != nil {
		return err
	}
	if !bytes.Equal(p, s.data[5:5+n]) {
		s.t.Error("other bytes")
	}
	return nil
}

func (s *scene) readAll() error {
	var b bytes.Buffer
	if _, err := s.old.WriteTo(&b); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), s.data) {
		s.t.Error("other bytes")
	}
	return nil
}

func drain[T any](seq func(yield func(T, error) bool)) (last error) {
	for _, err := range seq {
		last = err
	}
	return last
}

// Whatever the call and wherever its connection breaks, with the daemon or
// without, the call returns what is known of it, the pool can be used, and what
// the old connection gave cannot.
//
// proves S36
func TestLost(t *testing.T) {
	for _, lc := range lostCalls {
		for _, restart := range []bool{false, true} {
			for _, where := range []struct {
				name string
				at   boundary
				want string
			}{
				{"before", never, lc.before},
				{"asked", afterAsked, lc.asked},
				{"done", afterDone, lc.done},
				{"answered", afterAnswer, "ok"},
			} {
				for way, scene := range ways {
					t.Run(fmt.Sprintf("%s/restart=%v/%s/%s", lc.name, restart, where.name, way), func(t *testing.T) {
						t.Parallel()
						testLost(t, lc, scene(t), restart, where.at, where.want)
					})
				}
			}
		}
	}
}

func testLost(t *testing.T, lc lostCall, s *scene, restart bool, at boundary, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), inVain)
	defer cancel()
	l := s.c.current.Load()
	if at == never {
		s.f.drop(restart)
		s.c.broken(l)
	} else {
		s.f.breakAt(lc.op, at, restart)
	}
	if err := lc.call(ctx, s); !fits(err, want) {
		t.Errorf("%v, want %s", err, want)
	}
	s.c.broken(l)
	s.f.heal()
	if _, err := s.c.Version(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := s.p.Roots(ctx); err != nil && lc.name != "close pool" {
		t.Errorf("the pool afterwards: %v", err)
	}
	for what, err := range map[string]error{
		"read": s.read(ctx, 10), "commit": s.fresh.Commit(ctx), "delete": s.log.Delete(ctx), "sync": s.app.Sync(ctx),
		"get": second(s.log.Get(ctx)), "compact": s.mdc.CompactStart(ctx), "next": second(s.reader.Next(ctx, nil)),
	} {
		if !errors.Is(err, api.EBADF) {
			t.Errorf("%s with an old handle: %v", what, err)
		}
	}
	for what, put := range map[string]func() error{
		"put": s.old.Put, "put fresh": s.fresh.Put, "put log": s.log.Put, "close reader": s.reader.Close, "close pool": s.p.Close,
	} {
		// Once for each handle, and not for what the call itself has ended.
		if err := put(); err != nil && (!errors.Is(err, api.EBADF) || !slices.Contains(lc.ends, what)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// ways are the ways that data travels.
var ways = map[string]func(t *testing.T) *scene{"socket": newScene, "ring": newRingScene}

func second[T any](_ T, err error) error { return err }

// A connection that is gone is no end of what is read, however the error is
// looked at.
//
// proves S20
func TestLostIsNotEOF(t *testing.T) {
	for name, op := range map[string]ioctl.Op{"mblock": ioctl.OpMblockRead, "mlog": ioctl.OpReadNext} {
		f := newFake(t)
		ctx := t.Context()
		c := f.connect(Options{Reconnect: -1})
		p := must(c.OpenPool(ctx, "data"))
		b := must(p.AllocMblock(ctx, api.AllocOptions{}))
		l := must(p.AllocMlog(ctx, api.AllocOptions{}))
		r := must(l.OpenRead(ctx))
		f.breakAt(op, afterAsked, false)
		var err error
		if op == ioctl.OpMblockRead {
			_, err = b.ReadAtContext(ctx, make([]byte, 10), 0)
		} else {
			_, err = r.Next(ctx, make([]byte, 10))
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
