package credit_test

import (
	"testing"

	"github.com/mpool-go/mpool/credit"
)

// BenchmarkUncontended acquires and releases a credit that is cached: nobody is
// asked. The bound is 2 µs.
func BenchmarkUncontended(b *testing.B) {
	root, err := credit.Open(credit.Options{Config: credit.Config{ID: 1}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Abandon()
	user, err := credit.Open(credit.Options{Config: credit.Config{ID: 2}}, credit.NewLocal(root))
	if err != nil {
		b.Fatal(err)
	}
	defer user.Abandon()
	r := access(credit.Read, 0, 1<<20, anyhow)
	b.ReportAllocs()
	for b.Loop() {
		h, err := user.Acquire(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.Release(credit.Version{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRevoke has a writer call back 1000 cached readers, each an owner of
// its own.
func BenchmarkRevoke(b *testing.B) {
	root, err := credit.Open(credit.Options{Config: credit.Config{ID: 1}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Abandon()
	readers := make([]*credit.Owner, 1000)
	for i := range readers {
		o, err := credit.Open(credit.Options{Config: credit.Config{ID: credit.OwnerID(2 + i)}}, credit.NewLocal(root))
		if err != nil {
			b.Fatal(err)
		}
		defer o.Abandon()
		readers[i] = o
	}
	for b.Loop() {
		b.StopTimer()
		for _, o := range readers {
			h, err := o.Acquire(b.Context(), access(credit.Read, 0, 10, anyhow))
			if err != nil {
				b.Fatal(err)
			}
			if err := h.Release(credit.Version{}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		h, err := root.Acquire(b.Context(), access(credit.Write, 0, 10, anyhow))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := h.Release(credit.Version{}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
