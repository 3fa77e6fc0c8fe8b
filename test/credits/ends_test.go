package credits

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// borrower is a session of the client library in the test's own process that holds
// a credit.
type borrower struct {
	t    *testing.T
	c    *client.Conn
	p    api.Pool
	hold *client.Hold
}

func (b *bench) borrower(id layout.ObjectID) *borrower {
	b.t.Helper()
	c, err := client.Dial(ctx, client.Options{Socket: b.d.Socket, Credits: &client.CreditOptions{}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() }) // its daemon may be gone
	l := &borrower{t: b.t, c: c}
	l.open()
	l.acquire(id)
	return l
}

func (l *borrower) open() {
	l.t.Helper()
	var err error
	if l.p, err = l.c.OpenPool(ctx, poolName); err != nil {
		l.t.Fatal(err)
	}
}

// acquire has it hold a credit to read an object that nobody else keeps it from.
func (l *borrower) acquire(id layout.ObjectID) {
	l.t.Helper()
	var err error
	if l.hold, err = l.p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: credit.Read, Try: true}); err != nil {
		l.t.Fatal(err)
	}
}

// clean looks whether nothing of anybody's credits is in a pool that has just become active.
func (b *bench) clean() {
	b.t.Helper()
	is := b.d.Metrics("mpool_credit_objects", "mpool_credit_debtors", "mpool_credit_messages_total", "mpool_credits_fenced_total")
	for name, n := range is {
		if n != "0" {
			b.t.Errorf("%s is %s", name, n)
		}
	}
	if l := b.list(); len(l) != 0 || len(is) != 4 {
		b.t.Errorf("there are credits: %+v, %v", l, is)
	}
}

// proves G44, G47: a pool is not deactivated under clients that have it open, whatever they
// hold or cache, and they lose nothing by the attempt; with the last of them their credits
// have gone, and the pool begins anew with none, and with later tokens.
func TestPoolLeaves(t *testing.T) {
	drive := daemon.Drive(t, 32<<20)
	b := newBenchFor(t, daemon.Options{Profiles: true}, drive)
	admin := b.d.Dial()
	id, read := b.mblock(), b.mblock()
	p, q, r := start(t, b.d), start(t, b.d), start(t, b.d)
	p.ok(acquire(id, credit.Write))
	r.ok(acquire(read, credit.Read))
	r.ok(order{Verb: "release"}) // cached
	l := b.borrower(read)
	token := l.hold.Token()
	q.begin(acquire(id, credit.Read))
	b.waiting(q)
	if err := b.raw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := admin.DeactivatePool(ctx, poolName); api.CodeOf(err) != api.EBUSY {
		t.Fatalf("it is deactivated under its clients: %v", err)
	}
	if !p.ok(order{Verb: "valid"}).Valid || !l.hold.Valid() {
		t.Error("who held something has lost it")
	}
	r.ok(order{Verb: "acquire", ID: read, Mode: credit.Read, Not: onlyCached})
	p.ok(order{Verb: "release"})
	if a := q.result(); a.Code != "" {
		t.Errorf("who waited: %+v", a)
	}

	p.ok(order{Verb: "leave"}) // gives up its handle of the pool, with what it has cached
	q.ok(order{Verb: "leave"}) // and one with what it holds
	r.kill()                   // this one dies
	if l.p.Close() == nil {
		t.Error("the library lets go of a pool of which it holds a credit")
	}
	if err := l.hold.Release(); err != nil {
		t.Error(err)
	}
	if err := l.p.Close(); err != nil {
		t.Error(err)
	}
	daemon.Eventually(t, "nobody has it open", func() bool {
		err := admin.DeactivatePool(ctx, poolName)
		if err != nil && api.CodeOf(err) != api.EBUSY {
			t.Fatal(err)
		}
		return err == nil
	})
	if is := b.d.Metrics("mpool_credit"); len(is) != 0 {
		t.Errorf("of the pool that is not active any more there is %v", is)
	}
	if _, err := admin.ActivatePool(ctx, poolName, []string{drive}, api.ActivateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.dial()
	b.clean()
	l.open() // the same session
	l.acquire(id)
	if now := l.hold.Token(); now.Compare(token) <= 0 {
		t.Errorf("after token %v of the activation before comes %v", token, now)
	}
	s := start(t, b.d)
	s.fails(credit.ErrBusy, order{Verb: "acquire", ID: id, Mode: credit.Write, Try: true})
	s.ok(order{Verb: "acquire", ID: read, Mode: credit.Write, Try: true})
	s.kill()
	if err := l.c.Close(); err != nil {
		t.Error(err)
	}
	b.residue()
}

// proves G44, G47: the daemon ends cleanly under clients that hold credits, cache them, wait for
// them and are stopped, and under a delete that waits for who is stopped. Holds are lost and
// say so, no request waits for ever; the next daemon knows nothing of them, and lends to
// who was there before, under later tokens.
func TestDaemonStops(t *testing.T) {
	drive := daemon.Drive(t, 32<<20)
	o := daemon.Options{
		Config: "shutdown_timeout = '10m'\n[credits]\ncall_back = '10m'\n", // neither ends a wait
		Socket: filepath.Join(t.TempDir(), "s"), Profiles: true,
	}
	b := newBenchFor(t, o, drive)
	id, read, stuck, log := b.mblock(), b.mblock(), b.mblock(), b.mlog()
	p, q, r, s, d := start(t, b.d), start(t, b.d), start(t, b.d), start(t, b.d), start(t, b.d)
	p.ok(acquire(id, credit.Write))
	p.ok(order{Verb: "ring acquire", ID: log, Mode: credit.Append})
	p.ok(order{Verb: "ring open", ID: log})
	p.ok(order{Verb: "ring append", Data: []byte(streamed(0))})
	r.ok(acquire(read, credit.Read))
	r.ok(order{Verb: "release"}) // cached
	l := b.borrower(read)
	token := l.hold.Token()
	q.begin(acquire(id, credit.Read))
	b.waiting(q)
	s.ok(acquire(stuck, credit.Read))
	s.stop()
	h := d.ok(order{Verb: "find", ID: stuck}).Handle
	d.begin(order{Verb: "delete", Handle: h})
	daemon.Eventually(t, "the delete waits", func() bool {
		for _, i := range b.list() {
			if i.Object == stuck && i.Modes == credit.Delete {
				return true
			}
		}
		return false
	})
	b.d.Stop()
	if text := b.d.Log(); strings.Contains(text, "in time") || strings.Contains(text, "while in use") || !strings.Contains(text, "pool closed") {
		t.Errorf("it did not end cleanly:\n%s", text)
	}
	s.signal(syscall.SIGCONT)
	for _, x := range []*process{p, s} {
		x.ok(order{Verb: "lost"})
		if x.ok(order{Verb: "valid"}).Valid {
			t.Error("what is lost is said to be held")
		}
		x.fails(credit.ErrStale, order{Verb: "release"})
	}
	p.fails(credit.ErrClosed, order{Verb: "ring release"})
	r.fails(credit.ErrNoCreditor, order{Verb: "acquire", ID: read, Mode: credit.Read, Within: time.Millisecond})
	select {
	case <-l.hold.Lost():
	case <-time.After(daemon.Patience):
		t.Error("nobody tells the program that its credit is lost")
	}
	if l.hold.Valid() {
		t.Error("a lost credit is valid")
	}
	if err := l.hold.Release(); api.CodeOf(err) != api.ECONNRESET {
		t.Errorf("a lost credit is released: %v", err)
	}
	// It had what it waited for at last, if the session of who held that ended first.
	if a := q.result(); a.Code != credit.ErrNoCreditor.Error() && (a.Code != "" || q.ok(order{Verb: "valid"}).Valid) {
		t.Errorf("who waited: %+v", a)
	}
	if a := d.result(); a.Code != "" {
		t.Errorf("the delete, which is finished: %+v", a)
	}

	o.Config += fmt.Sprintf("[[activate]]\npool = '%s'\ndevices = ['%s']\n", poolName, drive)
	b.d = daemon.Start(t, mpoold, o)
	b.dial()
	b.clean()
	l.acquire(read) // the library has found the next daemon
	if now := l.hold.Token(); now.Compare(token) <= 0 {
		t.Errorf("after token %v of the daemon before comes %v", token, now)
	}
	p.ok(order{Verb: "ring acquire", ID: log, Mode: credit.Append, Try: true})
	b.holds(log, 1, nil)
	if _, err := b.raw.Open(ioctl.OpMblockFind, &ioctl.Find{Pool: b.pool, ID: stuck}); api.CodeOf(err) != api.ENOENT {
		t.Errorf("what was deleted is found: %v", err)
	}
	if err := l.c.Close(); err != nil {
		t.Error(err)
	}
	for _, x := range []*process{p, q, r, s, d} {
		x.kill()
	}
	b.residue()
}
