package quota_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/test/quotatest"
)

// committed is a store on a database at READ COMMITTED, as [quota.Store] says that one
// may be: each question of a view is answered by what is committed when it is asked, and
// others commit between two of them. A view counts if the generation is the same before
// and after it. Nothing is open between a view and a write.
type committed struct {
	mu    sync.Mutex
	books *quota.Books // +checklocks:mu

	open atomic.Int64 // transactions
	torn atomic.Int64 // views that did not count
}

func newCommitted(testing.TB) *committed {
	c := &committed{}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.books = quota.NewBooks()
	return c
}

// read does one question.
func read[T any](c *committed, f func(*quota.Books) T) T {
	runtime.Gosched() // others come in
	c.mu.Lock()
	defer c.mu.Unlock()
	return f(c.books)
}

func (c *committed) View(ctx context.Context, f func(quota.Reader)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.open.Add(1)
		g := read(c, (*quota.Books).Generation)
		f(statements{c, g})
		again := read(c, (*quota.Books).Generation)
		c.open.Add(-1)
		if again == g {
			return nil
		}
		c.torn.Add(1)
	}
}

func (c *committed) Apply(ctx context.Context, expect quota.Generation, changes []quota.Change) error {
	runtime.Gosched() // others come in
	if err := ctx.Err(); err != nil {
		return err
	}
	c.open.Add(1)
	defer c.open.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.books.Generation() != expect {
		return quota.ErrConflict
	}
	if len(changes) == 0 {
		return nil
	}
	return c.books.Apply(changes)
}

// statements answers one question at a time.
type statements struct {
	c *committed
	g quota.Generation
}

// two are two results of one question.
type two[A, B any] struct {
	a A
	b B
}

func pair[A, B any](c *committed, f func(*quota.Books) (A, B)) (A, B) {
	x := read(c, func(b *quota.Books) two[A, B] { a, y := f(b); return two[A, B]{a, y} })
	return x.a, x.b
}

func (s statements) Generation() quota.Generation { return s.g }
func (s statements) NextID() quota.ID             { return read(s.c, (*quota.Books).NextID) }
func (s statements) Classes() []quota.Class       { return read(s.c, (*quota.Books).Classes) }
func (s statements) Owners() []quota.Owner        { return read(s.c, (*quota.Books).Owners) }
func (s statements) Limits() []quota.OwnerLimit   { return read(s.c, (*quota.Books).Limits) }
func (s statements) Claims() []*quota.Claim       { return read(s.c, (*quota.Books).Claims) }

func (s statements) Class(name string) (quota.Class, bool) {
	return pair(s.c, func(b *quota.Books) (quota.Class, bool) { return b.Class(name) })
}

func (s statements) Owner(name string) (quota.Owner, bool) {
	return pair(s.c, func(b *quota.Books) (quota.Owner, bool) { return b.Owner(name) })
}

func (s statements) Limit(owner, class string) (quota.Limit, bool) {
	return pair(s.c, func(b *quota.Books) (quota.Limit, bool) { return b.Limit(owner, class) })
}

func (s statements) Used(owner, class string) quota.Sum {
	return read(s.c, func(b *quota.Books) quota.Sum { return b.Used(owner, class) })
}

func (s statements) Claim(id quota.ID) (*quota.Claim, bool) {
	return pair(s.c, func(b *quota.Books) (*quota.Claim, bool) { return b.Claim(id) })
}

func (s statements) Real(name string) (*quota.Claim, bool) {
	return pair(s.c, func(b *quota.Books) (*quota.Claim, bool) { return b.Real(name) })
}

func (s statements) Request(id string) (r quota.Request, claim quota.ID, ok bool) {
	r, claim = pair(s.c, func(b *quota.Books) (r quota.Request, id2 quota.ID) { r, id2, ok = b.Request(id); return r, id2 })
	return r, claim, ok
}

func (s statements) Children(id quota.ID) []quota.ID {
	return read(s.c, func(b *quota.Books) []quota.ID { return b.Children(id) })
}

func (s statements) NextExpiry() (time.Time, bool) {
	return pair(s.c, (*quota.Books).NextExpiry)
}

func (s statements) Due(now time.Time) []*quota.Claim {
	return read(s.c, func(b *quota.Books) []*quota.Claim { return b.Due(now) })
}

// proves G26: a store that is no better than READ COMMITTED passes the suite.
func TestReadCommittedConforms(t *testing.T) {
	quotatest.Run(t, func(tb testing.TB) quotatest.Store {
		tb.Helper()
		c := newCommitted(tb)
		return quotatest.Store{Store: c, Verify: func() error { return read(c, (*quota.Books).Verify) }}
	})
}

// proves G26: between the calls that reserve and provision, and while a call waits to
// try again, nothing is open in the store; views that others came into do not count, and
// no limit is passed.
func TestNoOpenTransaction(t *testing.T) {
	const workers, limit = 8, 20
	c := newCommitted(t)
	var pauses atomic.Int64
	alone := quota.New(c, quota.Options{Sleep: func(ctx context.Context, _ time.Duration) error {
		pauses.Add(1)
		return ctx.Err()
	}})
	ctx := t.Context()
	if err := alone.Define(ctx, class("x", limit, quota.Unlimited)); err != nil {
		t.Fatal(err)
	}
	open := func(when string) {
		if n := c.open.Load(); n != 0 {
			t.Errorf("%s %d transactions are open", when, n)
		}
	}
	claim, err := alone.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	open("while it is reserved")
	if _, err := alone.Provision(ctx, claim.ID, "real", ""); err != nil {
		t.Fatal(err)
	}
	open("while it is held")
	// One that always loses: whoever pauses has nothing open.
	lost := quota.New(&conflicting{Store: c, left: 20, t: t}, quota.Options{Sleep: func(ctx context.Context, _ time.Duration) error {
		open("in a pause")
		return ctx.Err()
	}})
	if _, err := lost.Release(ctx, quota.ByReal("real"), ""); err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range 50 {
				k, err := alone.Reserve(ctx, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 5}}})
				if errors.Is(err, quota.ErrExceeded) {
					continue
				}
				if err == nil {
					if n := got.Add(5); n > limit {
						t.Errorf("%d are reserved of %d", n, limit)
					}
					got.Add(-5)
					_, err = alone.Release(ctx, quota.ByID(k.ID), "")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	open("at the end")
	if sum := read(c, func(b *quota.Books) quota.Sum { return b.Used("", "x") }); sum != (quota.Sum{}) {
		t.Errorf("left %+v", sum)
	}
	t.Logf("%d conflicts, %d views did not count", pauses.Load(), c.torn.Load())
}
