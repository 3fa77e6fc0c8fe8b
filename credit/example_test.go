package credit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// Two users of an object: one reads, the other writes when the first lets go.
func Example() {
	ctx := context.Background()
	root, err := credit.Open(credit.Options{Config: credit.Config{ID: 1}}, nil)
	if err != nil {
		panic(err)
	}
	reader, err := credit.Open(credit.Options{Config: credit.Config{ID: 2}}, credit.NewLocal(root))
	if err != nil {
		panic(err)
	}
	writer, err := credit.Open(credit.Options{Config: credit.Config{ID: 3}}, credit.NewLocal(root))
	if err != nil {
		panic(err)
	}
	object := credit.Resource{Type: credit.Access, ID: 42}
	want := func(m credit.Modes, f credit.Flags) credit.Request {
		return credit.Request{
			Resource: object, Credit: credit.Make(credit.Span{First: 0, End: 4096, Modes: m}),
			Flags: credit.MayBorrow | credit.MayRevoke | f,
		}
	}
	read, err := reader.Acquire(ctx, want(credit.Read, 0))
	if err != nil {
		panic(err)
	}
	_, err = writer.Acquire(ctx, want(credit.Write, credit.Try))
	fmt.Println("while it is held:", errors.Is(err, credit.ErrBusy))

	if err := read.Release(credit.Version{}); err != nil { // it stays cached
		panic(err)
	}
	write, err := writer.Acquire(ctx, want(credit.Write, 0)) // and is called back
	if err != nil {
		panic(err)
	}
	fmt.Println("has", object.Type.Format(write.Credit()))
	if err := write.Release(credit.Version{}); err != nil {
		panic(err)
	}
	for _, o := range []*credit.Owner{reader, writer, root} {
		if err := o.Close(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// while it is held: true
	// has write[0,4096)
}

// A token that was taken back is refused where the work is done.
func ExampleGuard() {
	var guard credit.Guard
	object := credit.Resource{Type: credit.Access, ID: 42}
	block := credit.Make(credit.Span{First: 0, End: 4096, Modes: credit.Write})
	guard.Raise(object, block, credit.Token{8})
	fmt.Println(guard.Check(object, block, credit.Token{8}))
	fmt.Println(errors.Is(guard.Check(object, block, credit.Token{7}), credit.ErrStale))
	// Output:
	// <nil>
	// true
}

// The core alone: steps, given the time, that leave messages and events.
func ExampleBook() {
	b := credit.NewBook(credit.Config{ID: 1, CallBack: time.Second}, 0)
	pool := credit.Request{Resource: credit.Resource{Type: credit.Activation, ID: 7}, Credit: credit.Activation.All()}
	first, second := b.Acquire(1, pool), b.Acquire(2, pool)
	if err := b.Release(3, first, credit.Version{}); err != nil {
		panic(err)
	}
	_, events := b.Take()
	for _, e := range events {
		switch e.Kind {
		case credit.Granted:
			fmt.Println("granted", e.Request == second, e.Token)
		case credit.CalledBack:
			fmt.Println("called back")
		case credit.Failed, credit.Lost, credit.Fence, credit.Fenced, credit.Closed, credit.Waived, credit.Unfenced, credit.Evicted:
		}
	}
	// Output:
	// granted false 1
	// called back
	// granted true 2
}

// Space is divisible: it is asked for by amount, borrowed in chunks that serve the next
// requests without asking, and called back as far as nobody uses it.
func ExampleRequest_space() {
	const gib = 1 << 30
	ctx := context.Background()
	root, err := credit.Open(credit.Options{Config: credit.Config{ID: 1, Capital: func(credit.Resource) credit.Credit {
		return credit.Make(credit.Span{First: 0, End: 4 * gib, Modes: 1})
	}}}, nil)
	if err != nil {
		panic(err)
	}
	open := func(id credit.OwnerID) *credit.Owner {
		o, err := credit.Open(credit.Options{Config: credit.Config{ID: id}}, credit.NewLocal(root))
		if err != nil {
			panic(err)
		}
		return o
	}
	one, other := open(2), open(3)
	want := func(bytes uint64, f credit.Flags) credit.Request {
		return credit.Request{Resource: credit.Resource{Type: credit.Space, ID: 1}, Amount: bytes, Flags: f}
	}
	const anyhow = credit.MayBorrow | credit.MayRevoke
	used, err := one.Acquire(ctx, want(1000, anyhow)) // a chunk of 1 GiB is lent
	if err != nil {
		panic(err)
	}
	more, err := one.Acquire(ctx, want(2000, 0)) // of the chunk that is here
	if err != nil {
		panic(err)
	}
	fmt.Println("one uses", used.Credit().Size()+more.Credit().Size())

	rest, err := other.Acquire(ctx, want(4*gib-3000, anyhow)) // what one does not use comes back
	if err != nil {
		panic(err)
	}
	fmt.Println("the other uses all but", 4*gib-rest.Credit().Size())
	_, err = one.Acquire(ctx, want(1, anyhow|credit.Try))
	fmt.Println("none is left:", errors.Is(err, credit.ErrBusy))

	for _, h := range []*credit.Hold{used, more, rest} {
		if err := h.Release(credit.Version{}); err != nil {
			panic(err)
		}
	}
	for _, o := range []*credit.Owner{one, other, root} {
		if err := o.Close(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// one uses 3000
	// the other uses all but 3000
	// none is left: true
}
