package quota_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/test/quotatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func memory(testing.TB) quotatest.Store {
	s := quota.NewMemory()
	return quotatest.Store{Store: s, Verify: func() (err error) {
		_ = s.View(context.Background(), func(r quota.Reader) { err = r.(*quota.Books).Verify() })
		return err
	}}
}

// proves G27, the store in memory.
func TestMemoryConforms(t *testing.T) { quotatest.Run(t, memory) }

// 64 goroutines do everything at once; the books are exact at the end, and no limit
// was passed at any write.
//
// proves G22, G23
func TestManyGoroutines(t *testing.T) {
	ctx, s := t.Context(), memory(t)
	l := quota.New(s, quota.Options{})
	for _, name := range []string{"x", "y"} {
		c := quota.NewClass(name, quota.Count)
		c.Total, c.Default = 100, 30
		if err := l.Define(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []quota.Owner{{Name: "a"}, {Name: "b"}, {Name: "a1", Parent: "a"}, {Name: "a2", Parent: "a"}} {
		if err := l.AddOwner(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var mine []quota.ID
			for range 60 {
				err := step(ctx, l, r, &mine)
				if err != nil && !errors.Is(err, quota.ErrExceeded) && !errors.Is(err, quota.ErrNotFound) {
					t.Error(err)
				}
				_ = s.View(ctx, func(r quota.Reader) {
					for _, o := range []string{"", "a", "b", "a1", "a2"} {
						if n := r.Used(o, "x").Total(); n > 100 || o != "" && n > 30 {
							t.Errorf("%q holds %d", o, n)
						}
					}
				})
			}
			for _, id := range mine {
				_, _ = l.Release(ctx, quota.ByID(id), "")
			}
		})
	}
	wg.Wait()
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
	if list, err := l.Claims(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("%d claims are left, %v", len(list), err)
	}
}

func step(ctx context.Context, l *quota.Ledger, r *rand.Rand, mine *[]quota.ID) error {
	owner := []string{"a", "b", "a1", "a2"}[r.IntN(4)]
	some := []quota.Amount{{Class: "x", N: 1 + r.Int64N(4)}, {Class: "y", N: 1 + r.Int64N(4)}}
	if len(*mine) == 0 || r.IntN(3) == 0 {
		c, err := l.Reserve(ctx, quota.Ask{Owner: owner, Amounts: some})
		if err == nil {
			*mine = append(*mine, c.ID)
		}
		return err
	}
	i := r.IntN(len(*mine))
	id := (*mine)[i]
	switch r.IntN(4) {
	case 0:
		_, err := l.Resize(ctx, quota.ByID(id), some, "")
		return err
	case 1:
		_, err := l.Transfer(ctx, quota.ByID(id), owner, "")
		return err
	case 2:
		_, err := l.Reserve(ctx, quota.Ask{Owner: owner, Amounts: some, Parent: id})
		return err
	}
	_, err := l.Release(ctx, quota.ByID(id), "")
	*mine = append((*mine)[:i], (*mine)[i+1:]...)
	return err
}

func BenchmarkClaimRelease(b *testing.B) {
	ctx := b.Context()
	l := quota.New(quota.NewMemory(), quota.Options{})
	if err := l.Define(ctx, quota.NewClass("x", quota.Count)); err != nil {
		b.Fatal(err)
	}
	if err := l.AddOwner(ctx, quota.Owner{Name: "a"}); err != nil {
		b.Fatal(err)
	}
	one := []quota.Amount{{Class: "x", N: 1}}
	b.ReportAllocs()
	for b.Loop() {
		c, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: one})
		if err == nil {
			_, err = l.Release(ctx, quota.ByID(c.ID), "")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// What a call returns stays as it was, whatever the next one does in the same memory;
// nothing of a refused call is in the next one.
func TestResultsAreTheCallers(t *testing.T) {
	r := newRig(t, class("x", 3, quota.Unlimited))
	r.owner("a", "")
	first := r.mustTake("a", "x", 1)
	released, err := r.Release(t.Context(), quota.ByID(first.ID), "")
	r.is(err, nil)
	second := r.mustTake("a", "x", 2)
	_, err = r.take("a", "x", 2)
	r.is(err, quota.ErrExceeded)
	third := r.mustTake("a", "x", 1)
	_, err = r.Release(t.Context(), quota.ByID(second.ID), "")
	r.is(err, nil)
	if len(released) != 1 || released[0] != first || first.ID == third.ID || second.Amounts[0].N != 2 || third.Amounts[0].N != 1 {
		t.Errorf("%v of %v; %v, %v", released, first, second, third)
	}
	r.used("a", "x", 0, 1)
}
