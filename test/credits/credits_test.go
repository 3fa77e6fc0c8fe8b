package credits

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// bench is a daemon with a pool, and a session of the test's own.
type bench struct {
	t    *testing.T
	d    *daemon.Daemon
	raw  *daemon.Raw
	pool ioctl.Handle
}

func newBench(t *testing.T, config string) *bench {
	t.Helper()
	return newBenchOn(t, daemon.Options{Config: config, Profiles: true}, 32<<20)
}

// newBenchOn is newBench with a drive of so many bytes.
func newBenchOn(t *testing.T, o daemon.Options, size int64) *bench {
	t.Helper()
	return newBenchFor(t, o, daemon.Drive(t, size))
}

// newBenchFor is newBench with a drive.
func newBenchFor(t *testing.T, o daemon.Options, drive string) *bench {
	t.Helper()
	b := &bench{t: t, d: daemon.Start(t, mpoold, o)}
	c, _ := b.d.Pool(poolName, drive, api.CreateOptions{ZoneSize: 64 << 10})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b.dial()
	t.Cleanup(func() { _ = b.raw.Close() })
	return b
}

// dial begins the test's own session.
func (b *bench) dial() {
	b.t.Helper()
	var err error
	if b.raw, err = daemon.Greeted(b.d.Socket); err != nil {
		b.t.Fatal(err)
	}
	if err := b.raw.Conn.SetDeadline(time.Time{}); err != nil { // a long run is longer
		b.t.Fatal(err)
	}
	if b.pool, err = b.raw.OpenPool(poolName); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) ask(op ioctl.Op, m ioctl.Message) ioctl.Message {
	b.t.Helper()
	reply, err := b.raw.Ask(op, m)
	if err != nil {
		b.t.Fatalf("%v: %v", op, err)
	}
	return reply
}

// mblock puts a committed mblock without a handle.
func (b *bench) mblock() layout.ObjectID {
	b.t.Helper()
	o := b.ask(ioctl.OpMblockPut, &ioctl.MblockPut{Pool: b.pool, Data: ioctl.InlinePayload([]byte("content"))}).(*ioctl.Opened)
	b.ask(ioctl.OpClose, &ioctl.Target{Handle: o.Handle})
	return o.ID
}

// mlog makes a committed log without a handle.
func (b *bench) mlog() layout.ObjectID {
	b.t.Helper()
	o := b.ask(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: b.pool, Options: api.AllocOptions{Capacity: 65536}}).(*ioctl.Opened)
	b.ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: o.Handle})
	b.ask(ioctl.OpClose, &ioctl.Target{Handle: o.Handle})
	return o.ID
}

// list returns the credits that there are.
func (b *bench) list() []ioctl.CreditInfo {
	b.t.Helper()
	var list []ioctl.CreditInfo
	var m ioctl.CreditList
	for m.Pool = poolName; ; {
		reply := b.ask(ioctl.OpCreditList, &m).(*ioctl.CreditsReply)
		list = append(list, reply.Credits...)
		if !reply.More {
			return list
		}
		m.After = reply.Credits[len(reply.Credits)-1].CreditCursor
	}
}

// residue waits until there are no credits: those of the dead go with them.
func (b *bench) residue() {
	b.t.Helper()
	daemon.Eventually(b.t, "the creditor's book equals its start", func() bool { return len(b.list()) == 0 })
}

// events returns the events there were of a type.
func (b *bench) events(typ ioctl.EventType) []ioctl.Event {
	b.t.Helper()
	var list []ioctl.Event
	for after := uint64(0); ; {
		reply := b.ask(ioctl.OpEventNext, &ioctl.EventNext{After: after}).(*ioctl.EventsReply)
		if len(reply.Events) == 0 {
			return list
		}
		for _, e := range reply.Events {
			if e.Type == typ {
				list = append(list, e)
			}
		}
		after = reply.Last
	}
}

func acquire(id layout.ObjectID, m credit.Modes) order {
	return order{Verb: "acquire", ID: id, Mode: m}
}

// waiting waits until a process's request waits.
func (b *bench) waiting(p *process) {
	b.t.Helper()
	daemon.Eventually(b.t, "the request waits", func() bool {
		return slices.ContainsFunc(b.list(), func(i ioctl.CreditInfo) bool {
			return i.State == ioctl.CreditWaiting && int(i.PID) == p.cmd.Process.Pid
		})
	})
}

// proves G41, G42, G44, G46, G47, G50: the scenarios of a read-write lock between
// processes. Readers share; a writer waits for them; a later reader does not pass
// the writer; what is cached is given up at once, and needs no message before; tokens
// rise; nothing is left of who has died.
func TestReadWrite(t *testing.T) {
	b := newBench(t, "")
	id := b.mblock()
	p, q, w := start(t, b.d), start(t, b.d), start(t, b.d)
	first := p.ok(acquire(id, credit.Read))
	q.ok(acquire(id, credit.Read))
	p.ok(order{Verb: "release"})
	if p.ok(order{Verb: "acquire", ID: id, Mode: credit.Read, Not: onlyCached}).Token == (credit.Token{}) {
		t.Error("a cached read has no token")
	}
	w.fails(credit.ErrBusy, order{Verb: "acquire", ID: id, Mode: credit.Write, Try: true})
	w.begin(acquire(id, credit.Write))
	b.waiting(w)
	late := start(t, b.d)
	late.begin(acquire(id, credit.Read))
	b.waiting(late)
	p.ok(order{Verb: "release"})
	q.ok(order{Verb: "release"})
	wrote := w.result()
	if wrote.Code != "" || wrote.Token.Compare(first.Token) <= 0 {
		t.Fatalf("the writer: %+v, a reader before it had token %v", wrote, first.Token)
	}
	if l := b.list(); len(l) != 2 {
		t.Errorf("credits are %+v, want the writer's and one that waits", l)
	}
	w.kill() // while it holds it and another waits
	if r := late.result(); r.Code != "" || r.Token.Compare(wrote.Token) <= 0 {
		t.Errorf("the late reader: %+v", r)
	}
	late.kill()
	q.kill()
	p.kill()
	b.residue()
	daemon.Eventually(t, "each death tells its credits", func() bool {
		n := uint32(0)
		for _, e := range b.events(ioctl.EventClientReaped) {
			n += e.Credits
		}
		return n == 2 // the writer's and the late reader's
	})
}

// proves G42: ranges that do not meet do not conflict.
func TestRanges(t *testing.T) {
	b := newBench(t, "")
	id := b.mblock()
	p, q := start(t, b.d), start(t, b.d)
	p.ok(order{Verb: "acquire", ID: id, Mode: credit.Write, First: 0, End: 4096})
	q.ok(order{Verb: "acquire", ID: id, Mode: credit.Write, First: 4096, End: 8192})
	q.fails(credit.ErrBusy, order{Verb: "acquire", ID: id, Mode: credit.Read, First: 4095, End: 4097, Try: true, Slot: 1})
	p.ok(order{Verb: "release"})
	q.ok(order{Verb: "release"})
	q.ok(order{Verb: "acquire", ID: id, Mode: credit.Read, First: 4095, End: 4097, Slot: 1})
	q.fails(credit.ErrNotFound, acquire(id+1<<20, credit.Read))
	p.kill()
	q.kill()
	b.residue()
}

// proves G43, G44: who is stopped and holds what another one waits for is fenced at
// the deadline; what it does when it resumes is refused.
func TestStopped(t *testing.T) {
	b := newBench(t, "[credits]\ncall_back = '300ms'\n")
	log, fresh := b.mlog(), order{Verb: "alloc"}
	p, q := start(t, b.d), start(t, b.d)
	h := p.ok(order{Verb: "find log", ID: log}).Handle
	p.ok(order{Verb: "acquire", ID: log, Mode: credit.Append})
	a := p.ok(order{Verb: "open", Handle: h}).Handle
	p.ok(order{Verb: "append", Handle: a, Data: []byte("before")})
	m := p.ok(fresh)
	p.ok(order{Verb: "write", Handle: m.Handle, Data: []byte("content")})
	p.signal(syscall.SIGSTOP)
	q.ok(order{Verb: "acquire", ID: log, Mode: credit.Append})
	q.ok(order{Verb: "acquire", ID: m.ID, Mode: credit.Write, Slot: 1})
	hq := q.ok(order{Verb: "find log", ID: log}).Handle
	aq := q.ok(order{Verb: "open", Handle: hq}).Handle
	q.ok(order{Verb: "append", Handle: aq, Data: []byte("of the next")})
	p.signal(syscall.SIGCONT)
	p.fails(api.ESTALE, order{Verb: "append", Handle: a, Data: []byte("late")})
	p.fails(api.ESTALE, order{Verb: "append", Handle: a, Data: []byte("again")})
	p.fails(api.ESTALE, order{Verb: "commit", Handle: m.Handle})
	p.fails(credit.ErrStale, order{Verb: "release"})
	q.ok(order{Verb: "append", Handle: aq, Data: []byte("after")})
	revoked := b.events(ioctl.EventRevoked)
	pid := int32(p.cmd.Process.Pid)
	for _, want := range []layout.ObjectID{log, m.ID} {
		if !slices.ContainsFunc(revoked, func(e ioctl.Event) bool { return e.Object == want && e.PID == pid && e.Pool == poolName }) {
			t.Errorf("no event tells that %v was taken: %+v", want, revoked)
		}
	}
	q.kill()
	p.kill()
	b.residue()
}

// proves G43: a client that was stopped, and whose credits nobody wants, loses
// nothing.
func TestStoppedInPeace(t *testing.T) {
	b := newBench(t, "[credits]\ncall_back = '50ms'\n")
	id := b.mblock()
	p := start(t, b.d)
	p.ok(acquire(id, credit.Write))
	p.signal(syscall.SIGSTOP)
	q := start(t, b.d)
	q.ok(acquire(b.mblock(), credit.Write)) // of another object
	p.signal(syscall.SIGCONT)
	if !p.ok(order{Verb: "valid"}).Valid {
		t.Error("it has lost what nobody wanted")
	}
	p.ok(order{Verb: "release"})
}

// proves G49: an open takes read, a delete calls back what is cached, says who
// holds what is held, and needs no credit of the client's own.
func TestDelete(t *testing.T) {
	b := newBench(t, "")
	id, other := b.mblock(), b.mblock()
	p, q := start(t, b.d), start(t, b.d)
	p.ok(acquire(id, credit.Read))
	h := q.ok(order{Verb: "find", ID: id}).Handle
	r := q.fails(api.EBUSY, order{Verb: "delete", Handle: h})
	if !strings.Contains(r.Text, "session") {
		t.Errorf("it does not say who: %s", r.Text)
	}
	p.ok(order{Verb: "release"}) // cached from now on
	q.ok(order{Verb: "delete", Handle: h})
	p.fails(credit.ErrNotFound, acquire(id, credit.Read))

	q.ok(order{Verb: "find", ID: other})
	p.fails(credit.ErrBusy, order{Verb: "acquire", ID: other, Mode: credit.Delete, Try: true})
	q.kill()
	p.ok(acquire(other, credit.Delete))
	s := start(t, b.d)
	s.fails(api.EBUSY, order{Verb: "find", ID: other})
	p.ok(order{Verb: "release"})
	s.ok(order{Verb: "find", ID: other})
	p.kill()
	s.kill()
	b.residue()
}

// A revocation calls everything back, and takes it from who does not answer.
func TestRevoke(t *testing.T) {
	b := newBench(t, "[credits]\ncall_back = '200ms'\n")
	id := b.mblock()
	p, q, r := start(t, b.d), start(t, b.d), start(t, b.d)
	p.ok(acquire(id, credit.Read))
	q.ok(acquire(id, credit.Read))
	q.ok(order{Verb: "release"})
	h := r.ok(order{Verb: "find", ID: id}).Handle
	b.ask(ioctl.OpCreditRevoke, &ioctl.Find{Pool: b.pool, ID: id})
	b.residue()
	p.ok(order{Verb: "lost"})
	p.fails(credit.ErrStale, order{Verb: "release"})
	r.fails(api.ESTALE, order{Verb: "commit", Handle: h})
	r.fails(api.ESTALE, order{Verb: "close", Handle: h})
	r.fails(api.EBADF, order{Verb: "close", Handle: h})
}

// proves G41: 1,000 acquisitions of what is cached cost no message.
func TestCached(t *testing.T) {
	b := newBench(t, "")
	w, err := dialWire(b.d.Socket, poolName)
	if err != nil {
		t.Fatal(err)
	}
	defer w.end()
	id := b.mblock()
	sent := uint64(0)
	for i := range 1000 {
		h, err := w.acquire(context.Background(), id, credit.Read, 0, credit.End, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Release(credit.Version{}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			daemon.Eventually(t, "all is said", func() bool {
				was := sent
				sent = w.sent.Load()
				time.Sleep(time.Millisecond) // until it acknowledges no more
				return was == sent
			})
			if h.Version() == (credit.Version{}) {
				t.Error("an mblock's credit has no version")
			}
		}
	}
	// An acknowledgement of the first may come later.
	if n := w.sent.Load(); n > sent+5 {
		t.Errorf("%d messages", n-sent)
	}
}
