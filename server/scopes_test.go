package server

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/scope"
)

// newScopeRig is a rig whose clients are counted in scopes, which it checks in the end:
// nothing is left in them.
func newScopeRig(t *testing.T, file scope.Layer, change ...func(*Options)) (*rig, *Scopes) {
	t.Helper()
	var s *Scopes
	t.Cleanup(func() { // after the rig's own
		for _, e := range s.List() {
			left := e.Used
			if e.Scope == scope.SystemName && e.Kind == scope.Memory {
				left -= fixedBytes
			}
			if left != 0 {
				t.Errorf("%s still uses %d of %v", e.Scope, left, e.Kind)
			}
		}
	})
	r := newRig(t, append(change, func(o *Options) {
		var err error
		s, err = NewScopes(ScopeOptions{
			Limits: o.Limits, File: file, Machine: scope.Machine{Memory: 8 << 30, Descriptors: 1000},
			Logger: o.Logger, KeepGoLimit: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Scopes = s
	})...)
	return r, s
}

// used returns what a scope uses, or -1 if there is none.
func used(s *Scopes, name string, k scope.Kind) int64 {
	for _, e := range s.List() {
		if e.Scope == name && e.Kind == k {
			return e.Used
		}
	}
	return -1
}

// tasksOver waits until no request has a task: one may have it for a moment after it was
// answered, and another can use what is reserved for it.
func tasksOver(t *testing.T, s *Scopes) {
	t.Helper()
	for end := time.Now().Add(inVain); used(s, scope.SystemName, scope.Tasks) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is asked, and there are tasks")
		}
	}
}

// proves G5: a session is Transient's until its hello, then its client's and user's, and
// the service's of each pool that it opens; all of it is given back at its end.
func TestSessionInScopes(t *testing.T) {
	r, s := newScopeRig(t, nil)
	w := r.rawDial()
	for end := time.Now().Add(inVain); used(s, scope.TransientName, scope.Memory) != sessionBytes; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", s.List())
		}
	}
	w.send(ioctl.Header{Op: ioctl.OpHello}, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	if _, err := w.answer(ioctl.OpHello, 0); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("client:%d/%d", os.Geteuid(), os.Getpid())
	user := fmt.Sprintf("user:%d", os.Geteuid())
	for _, c := range []struct {
		scope string
		want  int64
	}{{scope.TransientName, 0}, {name, 1}, {user, 1}, {scope.SystemName, 1}, {"service:data", 0}} {
		if got := used(s, c.scope, scope.Connections); got != c.want {
			t.Errorf("%s has %d connections, want %d", c.scope, got, c.want)
		}
	}
	w.openPool()
	w.openPool()
	if got := used(s, "service:data", scope.Connections); got != 1 {
		t.Errorf("the service has %d connections", got)
	}
	if m, c := used(s, "service:data", scope.Memory), used(s, name, scope.Memory); m != c || m < sessionBytes {
		t.Errorf("the service has %d bytes, the client %d", m, c)
	}
	w.arena(1 << 20)
	if m := used(s, user, scope.Memory); m < sessionBytes+1<<20 {
		t.Errorf("the user has %d bytes", m)
	}
}

// proves G6: what a limit refuses is EAGAIN that names scope, kind, numbers and the
// setting to change; the log says so.
func TestScopeRefuses(t *testing.T) {
	r, s := newScopeRig(t, nil)
	w := r.raw()
	w.openPool()
	client := fmt.Sprintf("client:%d/%d", os.Geteuid(), os.Getpid())
	for _, c := range []struct {
		scope string
		kind  scope.Kind
		op    ioctl.Op
		m     ioctl.Message
	}{
		{client, scope.Memory, ioctl.OpArena, &ioctl.ArenaAsk{Size: 1 << 20}},
		{"client", scope.Memory, ioctl.OpVersion, &ioctl.Empty{}},
		{"service:data", scope.TasksMedium, ioctl.OpVersion, &ioctl.Empty{}},
		{scope.SystemName, scope.Tasks, ioctl.OpVersion, &ioctl.Empty{}},
		{fmt.Sprintf("user:%d", os.Geteuid()), scope.Descriptors, ioctl.OpArena, &ioctl.ArenaAsk{Size: 8192}},
		{"session", scope.TasksHigh, ioctl.OpObjectCommit, &ioctl.Target{Handle: 99}},
	} {
		if err := s.Set(c.scope, scope.Limits{c.kind: scope.Block()}); err != nil {
			t.Fatal(err)
		}
		tasksOver(t, s)
		_, err := w.ask(c.op, c.m)
		want(t, api.EAGAIN, err)
		for _, part := range []string{c.scope, c.kind.String(), "limit of 0", "mpoolctl scope set " + scopeClass(c.scope)} {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in %q", part, err)
			}
		}
		if err := s.Set(c.scope, scope.Limits{c.kind: {}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.ask(c.op, c.m); api.CodeOf(err) == api.EAGAIN {
			t.Errorf("still refused: %v", err)
		}
	}
	if !strings.Contains(r.log.String(), "a limit refused a client") {
		t.Error("the log does not say it")
	}
}

// proves G5: a client that may not come in is told why, has taken nothing, and may say
// hello again.
func TestHelloRefused(t *testing.T) {
	r, s := newScopeRig(t, scope.Layer{"user": {scope.Memory: scope.Fixed(10)}})
	w := r.rawDial()
	hello := func() error {
		w.send(ioctl.Header{Op: ioctl.OpHello}, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
		_, err := w.answer(ioctl.OpHello, 0)
		return err
	}
	want(t, api.EAGAIN, hello())
	if n := used(s, scope.TransientName, scope.Memory); n != sessionBytes {
		t.Errorf("transient has %d bytes", n)
	}
	if err := s.SetFile(nil); err != nil {
		t.Fatal(err)
	}
	if err := hello(); err != nil {
		t.Error(err)
	}
}

// The number of sessions is one limit, whether limits.sessions or the scope says it, and
// also while running.
func TestSessionsLimit(t *testing.T) {
	r, s := newScopeRig(t, nil, func(o *Options) { o.Limits.Sessions = 2 })
	r.raw()
	r.raw()
	refused := func() error {
		w := r.rawDial()
		w.send(ioctl.Header{Op: ioctl.OpHello}, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
		_, err := w.answer(ioctl.OpHello, 0)
		return err
	}
	err := refused()
	want(t, api.EAGAIN, err)
	if err != nil && !strings.Contains(err.Error(), "[limits] sessions") {
		t.Errorf("%v", err)
	}
	if err := s.Set(scope.SystemName, scope.Limits{scope.Inbound: scope.Fixed(3)}); err != nil {
		t.Fatal(err)
	}
	if err := refused(); err != nil {
		t.Error(err)
	}
	if err := s.SetFile(nil); err != nil { // which takes back what was set
		t.Fatal(err)
	}
	want(t, api.EAGAIN, refused())
}

// proves G8: background steps are tasks of low priority from their beginning to their end,
// which a limit holds up; but not for ever those that requests may wait for.
func TestStepsAreTasks(t *testing.T) {
	r, s := newScopeRig(t, scope.Layer{"service": {scope.TasksLow: scope.Block()}})
	p := r.pool()
	s.patience = time.Millisecond
	done, err := p.watch.Admit(context.Background(), mpool.PriorityHigh)
	if err != nil {
		t.Fatal(err)
	}
	done()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.watch.Admit(ctx, mpool.PriorityLow); err == nil {
		t.Error("a step began")
	}
	if _, err := p.watch.Admit(ctx, mpool.PriorityHigh); err == nil {
		t.Error("a step began whose context has ended")
	}
	if err := s.SetFile(nil); err != nil {
		t.Fatal(err)
	}
	s.patience = time.Hour
	for _, priority := range []mpool.Priority{mpool.PriorityLow, mpool.PriorityHigh} {
		done, err := p.watch.Admit(t.Context(), priority)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"service:data", scope.SystemName} {
			if n := used(s, name, scope.TasksLow); n != 1 {
				t.Errorf("%s has %d tasks while a step is under way", name, n)
			}
		}
		done()
		if n := used(s, scope.SystemName, scope.Tasks); n != 0 {
			t.Errorf("%d tasks after a step", n)
		}
	}
}

// Services are those of the active pools, by their names, with their own memory.
func TestServicesFollowPools(t *testing.T) {
	s, err := NewScopes(ScopeOptions{Machine: scope.Machine{Memory: 1 << 30}, Logger: slog.New(slog.DiscardHandler), KeepGoLimit: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, pools := range []map[string]int64{{"a": 100, "b": 5}, {"a": 50, "c": 7}, {}} {
		if err := s.follow(pools); err != nil {
			t.Fatal(err)
		}
		var sum int64 = fixedBytes
		for _, name := range []string{"a", "b", "c"} {
			n, active := pools[name]
			if got := used(s, "service:"+name, scope.Memory); active && got != n || !active && got != -1 {
				t.Errorf("%v: %s has %d bytes", pools, name, got)
			}
			sum += n
		}
		if got := used(s, scope.SystemName, scope.Memory); got != sum {
			t.Errorf("the system has %d bytes, want %d", got, sum)
		}
	}
}

// No limit keeps a client from giving back, nor an administrator from changing limits.
func TestGivingBackIsNotRefused(t *testing.T) {
	r, s := newScopeRig(t, nil)
	w := r.raw()
	pool := w.openPool()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	w.ok(ioctl.OpScopeSet, &ioctl.ScopeSet{Name: "client", Limits: []ioctl.ScopeLimit{{Kind: "tasks", Limit: "block"}, {Kind: "memory", Limit: "block"}}})
	tasksOver(t, s)
	_, err := w.ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: b})
	want(t, api.EAGAIN, err)
	w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: b})
	w.ok(ioctl.OpClose, &ioctl.Target{Handle: pool})
	reply, ok := w.ok(ioctl.OpScopeList, &ioctl.ScopesAsk{}).(*ioctl.ScopesReply)
	if !ok || len(reply.Entries) != len(s.List()) {
		t.Errorf("%d entries, want %d", len(reply.Entries), len(s.List()))
	}
	w.ok(ioctl.OpScopeSet, &ioctl.ScopeSet{Name: "client", Limits: []ioctl.ScopeLimit{{Kind: "tasks", Limit: "default"}, {Kind: "memory", Limit: "default"}}})
	w.openPool()
}

// proves G2: when the server itself gives back for a session what it has not reserved, or
// ends its scope twice, that session ends, which is logged and counted once; the others go
// on, and the books are right.
func TestWrongBooksEndTheirSession(t *testing.T) {
	for name, fault := range map[string]func(*session){
		"too much":    func(s *session) { s.srv.reserver.Release(&s.client, MessageBytes, 1<<40) },
		"again":       func(s *session) { s.srv.reserver.Release(&s.client, Urgent, 1) },
		"ended early": func(s *session) { s.srv.reserver.Release(&s.client, Connections, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newScopeRig(t, nil)
			other := r.raw()
			other.openPool()
			w := r.raw()
			w.openPool()
			w.arena(1 << 20)
			victim := r.srv.all()[1]
			if !victim.greeted.Load() { // what comes before that is its reader's own
				t.Fatal("it has not said hello")
			}
			fault(victim)
			if name == "ended early" { // what is given back after that is what shows it
				_, _ = w.ask(ioctl.OpVersion, &ioctl.Empty{}) // it may hear of the end
			}
			w.ended()
			r.nextReaped(1)
			other.ok(ioctl.OpVersion, &ioctl.Empty{})
			for end := time.Now().Add(inVain); used(s, scope.SystemName, scope.Connections) != 1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%+v", s.List())
				}
			}
			client := fmt.Sprintf("client:%d/%d", os.Geteuid(), os.Getpid())
			for _, k := range []scope.Kind{scope.Memory, scope.Descriptors, scope.Tasks} {
				if c, sys := used(s, client, k), used(s, scope.SystemName, k); c != sys && c != sys-fixedBytes {
					t.Errorf("system has %d of %v, its one client %d", sys, k, c)
				}
			}
			if n := r.srv.Snapshot().WrongBooks; n != 1 {
				t.Errorf("%d sessions had wrong books", n)
			}
			if n := strings.Count(r.log.String(), "the books of a session are wrong"); n != 1 {
				t.Errorf("the log says it %d times", n)
			}
		})
	}
}

// A pool's memory is charged when it has grown, by whoever opens an object then; and nothing
// is done for that meanwhile.
func TestGrowthIsCharged(t *testing.T) {
	r, s := newScopeRig(t, nil)
	w := r.raw()
	pool := w.openPool()
	charged := func() int64 { return used(s, "service:data", scope.Memory) }
	alloc := func() {
		w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	}
	until := func(ok func() bool) { // of requests whose answers have come some are counted for a moment
		t.Helper()
		for end := time.Now().Add(inVain); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d bytes are charged", charged())
			}
		}
	}
	alloc()
	client := fmt.Sprintf("client:%d/%d", os.Geteuid(), os.Getpid())
	tasksOver(t, s)
	before, p := used(s, client, scope.Memory), r.pool()
	p.table.Store(7 << 20)
	alloc()
	until(func() bool { return charged() == before }) // nothing has grown
	for i := range int64(3) {
		p.table.Store((i + 1) << 20)
		p.growths.Add(1)
		alloc()
		until(func() bool { return charged() == before+(i+1)<<20 })
	}
	if n := used(s, scope.SystemName, scope.Memory); n < 3<<20+fixedBytes {
		t.Errorf("the system has %d bytes", n)
	}
	p.table.Store(0)
	p.growths.Add(1)
	alloc()
}
