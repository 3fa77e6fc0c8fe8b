package scopes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// sweep is a daemon in which calls are refused what they need.
type sweep struct {
	stage

	base []layout.ObjectID // what the pool has for all
	had  string            // the books without a session
}

// A session's limits let each call have its first reservation refused, then the second
// and so on, of memory, descriptors and requests of either urgency: what is refused is
// EAGAIN that names the scope and the kind; with just enough, and without a limit, the
// call goes on where it was, as if it had not been refused; and when the session has
// ended, its user has in use what it had before, and the pool has no object and no byte
// more than what was made.
//
// proves S33 S41 G1 G8
func TestEachReservationOfEachCallRefused(t *testing.T) {
	drive, aside := daemon.Drive(t, 256<<20), daemon.Drive(t, 64<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: "log_level = \"error\"\n"})
	w := &sweep{}
	w.t = t
	w.admin, w.p = d.Pool("swept", drive, api.CreateOptions{})
	if _, err := w.admin.CreatePool(t.Context(), "aside", []string{aside}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.stock(t)
	w.aside = aside
	daemon.Eventually(t, "nothing is under way but the question", func() bool {
		w.had = w.books()
		return w.inUse(user())["tasks"] == 1
	})
	refused, kinds := 0, []string{"memory", "descriptors", "tasks_medium", "tasks_high"}
	calls := sweptCalls()
	for _, c := range calls {
		for _, kind := range kinds {
			w.n++
			refused += w.trial(d, c, kind)
			if t.Failed() {
				t.Fatalf("%s, short of %s", c.name, kind)
			}
		}
	}
	t.Logf("%d refusals of %d calls", refused, len(calls))
	if refused < 2*len(calls) {
		t.Errorf("only %d refusals", refused)
	}
}

// stock makes what the pool has for all.
func (w *sweep) stock(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	m := must[api.Mblock](&w.stage)(w.p.PutMblock(ctx, api.AllocOptions{}, many))
	l := must[api.Mlog](&w.stage)(w.p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20}))
	w.ok(l.Commit(ctx))
	a := must[api.Appender](&w.stage)(l.OpenAppend(ctx))
	for _, b := range [][]byte{few, many} {
		w.ok(errOf(a.Append(ctx, b, true)))
	}
	w.ok(errors.Join(a.Close(ctx), l.Put(), m.Put()))
	w.mblock, w.log = m.ID(), l.ID()
	w.container = must[layout.ObjectID](&w.stage)(w.p.CreateMDC(ctx, api.AllocOptions{Capacity: 1 << 16}))
	w.base = w.objects()
}

func (w *sweep) objects() (list []layout.ObjectID) {
	w.t.Helper()
	for o, err := range w.p.Objects(w.t.Context(), api.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if o.Partner == 0 || o.Partner > o.ID {
			list = append(list, o.ID)
		}
	}
	slices.Sort(list)
	return list
}

// books are what the test's user has in use, and what the pool has beside its objects.
func (w *sweep) books() string {
	w.t.Helper()
	info, err := w.p.Info(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%v, uncommitted %d, draining %d, live %d",
		w.inUse(user()), info.Space.Uncommitted, info.Space.Draining, info.Space.Live)
}

func user() string { return fmt.Sprintf("user:%d", os.Geteuid()) }

// used is what a scope has in use, by kind.
type used map[string]int64

// inUse is what a scope has in use.
func (w *sweep) inUse(name string) used {
	w.t.Helper()
	u := make(used)
	for e, err := range w.admin.Scopes(w.t.Context(), name) {
		if err != nil {
			w.t.Fatal(err)
		}
		u[e.Kind] = e.Used
	}
	return u
}

// uses is what a session has in use when it has no request under way.
func (w *sweep) uses(session string) (has used) {
	w.t.Helper()
	daemon.Eventually(w.t, "nothing of the session is under way", func() bool {
		has = w.inUse(session)
		return has["tasks"] == 0
	})
	return has
}

// limit sets how much of a kind a session may use.
func (w *sweep) limit(session, kind, n string) {
	w.t.Helper()
	if _, err := w.admin.SetScope(w.t.Context(), session, []client.ScopeLimit{{Kind: kind, Limit: n}}); err != nil {
		w.t.Fatal(err)
	}
}

// trial makes a call with less of a kind than it needs, and returns how often it was
// refused.
func (w *sweep) trial(d *daemon.Daemon, c sweptCall, kind string) (refused int) {
	w.t.Helper()
	ctx := w.t.Context()
	conn, session := w.dial(d)
	s := w.stage
	s.c, s.admin = conn, w.admin
	if c.name != "open pool" {
		s.p = must[api.Pool](&s)(conn.OpenPool(ctx, "swept"))
	}
	call, after := c.prepare(&s)
	w.limit(session, kind, "0")
	var last *api.Refusal
	for err := call(ctx); err != nil; err = call(ctx) {
		r := refusalIn(err)
		if r == nil || r.Owner != session || r.Class != kind {
			w.t.Fatalf("short of %s: %v", kind, err)
		}
		refused++
		next := r.Used + r.Asked
		if last != nil && *last == *r || refused > 100 {
			w.t.Fatalf("refused again, with %d: %v", next, err)
		}
		last = r
		// The same again: a refusal leaves nothing in use. Or it is done with less.
		has := w.uses(session)
		if again := call(ctx); again == nil {
			break
		} else if refusalIn(again) == nil {
			w.t.Fatalf("refused, and then under the same limit: %v", again)
		}
		daemon.Eventually(w.t, "the session uses no more of it than before", func() bool { return w.uses(session)[kind] <= has[kind] })
		if kind == "memory" && strings.Contains(err.Error(), "arenas") {
			next = next*256/204 + 1 // the last part of each limit is not for arenas
		}
		w.limit(session, kind, fmt.Sprint(next))
	}
	w.limit(session, kind, "unlimited")
	if err := after(ctx); err != nil {
		w.t.Errorf("after %d refusals: %v", refused, err)
	}
	w.leave(conn)
	return refused
}

// refusalIn returns which limit refuses, of an EAGAIN, or of the ENOMEM that follows from
// one when there is no shared memory for a call's data; else nil.
func refusalIn(err error) *api.Refusal {
	var e *api.Error
	if !errors.As(err, &e) {
		return nil
	}
	if e.Code == api.ENOMEM && e.Err != nil {
		return refusalIn(e.Err)
	}
	if e.Code != api.EAGAIN {
		return nil
	}
	return e.Refusal
}

// dial makes a connection and returns its scope's name.
func (w *sweep) dial(d *daemon.Daemon) (*client.Conn, string) {
	w.t.Helper()
	c, err := client.Dial(w.t.Context(), client.Options{Socket: d.Socket})
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := w.admin.Clients(w.t.Context(), int32(os.Getpid()))
	if err != nil {
		w.t.Fatal(err)
	}
	var last uint64
	for _, i := range list {
		last = max(last, i.Session)
	}
	return c, fmt.Sprintf("session:%d", last)
}

// leave ends a connection, deletes what it has committed, and compares the books.
func (w *sweep) leave(c *client.Conn) {
	w.t.Helper()
	ctx := context.Background()
	w.ok(c.Close())
	roots, err := w.p.Roots(ctx)
	w.ok(err)
	for i := range roots {
		roots[i].ID = 0
	}
	w.ok(w.p.SetRoots(ctx, roots))
	for _, id := range w.objects() {
		if slices.Contains(w.base, id) {
			continue
		}
		var err error
		defer func() {
			if err != nil {
				w.t.Logf("%v: %v", id, err)
			}
		}()
		daemon.Eventually(w.t, "what was committed can be deleted", func() bool {
			err = w.remove(ctx, id)
			return err == nil
		})
	}
	now := ""
	defer func() {
		if now != w.had {
			w.t.Logf("the books are\n%s; want\n%s", now, w.had)
		}
	}()
	daemon.Eventually(w.t, "the books are as before", func() bool {
		now = w.books()
		return now == w.had
	})
}

func (w *sweep) remove(ctx context.Context, id layout.ObjectID) error {
	var o api.Object
	var err error
	if id.Kind() == layout.KindMlog {
		o, err = w.p.Mlog(ctx, id)
	} else {
		o, err = w.p.Mblock(ctx, id)
	}
	if err != nil {
		return err
	}
	info, err := o.Info(ctx)
	if err == nil && info.Partner != 0 {
		return errors.Join(o.Put(), w.p.DeleteMDC(ctx, id))
	}
	if err == nil {
		err = o.Delete(ctx)
	}
	if err != nil {
		err = errors.Join(err, o.Put())
	}
	return err
}
