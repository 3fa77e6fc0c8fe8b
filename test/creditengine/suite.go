// Package creditengine is what every [credit.Engine] must do, as tests. An engine
// runs them over a [Rig], which says how to reach it and how to disturb it; the
// package's own tests run them over the engine between owners of one process, and
// over a simulated network with leases.
//
// # Who writes an engine
//
// makes a test that calls [Run] with a function that starts what the engine needs
// and returns a Rig, anew for each test, and ends it by t.Cleanup:
//
//	func TestEngine(t *testing.T) {
//		creditengine.Run(t, plainly, func(t *testing.T) creditengine.Rig { ... })
//	}
//	func plainly(t *testing.T, run func(*testing.T)) { run(t) }
//
// An engine in this process can run in a bubble instead (synctest.Test): then no
// test takes longer than its steps. An engine with a server of its own runs in true
// time; with a CallBack of half a second and a Lease of one all tests take about a
// minute. In both cases the suite waits for what is to happen, for a minute at most,
// and judges nothing by how long it took; but an owner that is stopped for longer
// than its lease has lost what it had, so leave it time.
//
// The root may be a [credit.Owner] that the engine carries messages to; or there
// is none, and the engine plays it: it then answers each message as
// [credit.Kind] says, numbers what it sends, and acknowledges. Whichever it is:
//
//	Exclusion, Sharing      who conflicts waits, who does not shares; who has it is told that others wait
//	Try                     who only tries is refused at once, and moves nothing that is held
//	Cancel                  who gives up is forgotten: those it had called back keep what they have
//	TokensRise              each grant has a later token than all before it
//	Fencing                 who does not give back in time loses that, and nothing else; its token is refused
//	Death                   what the dead had is free, and its token refused
//	WindUp                  who leaves leaves nothing behind
//	DeathOfCreditor         what the dead one lent ends, with the lease if there is one; its successor lends anew
//	Reconnecting            who is connected anew to who lent it has what its lease covers, or nothing
//	IdleLosesNothing        no time takes from its holder what nobody wants
//
// and with leases, whose ends nobody tells:
//
//	LeaseEnds               who is silent loses all, stops using it before anybody else has it, and begins anew
//	LeaseIsRenewed          who renews keeps all for longer than one lease
//	ShortSilence            who is silent for less than its lease loses nothing
//	DeathInLease            the dead are noticed by their leases alone
//
// After each of them all debtors wind up, and the root's book is to be empty.
package creditengine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// Rig is an engine with a root behind it, of which nobody is a debtor yet.
type Rig struct {
	// Engine is what is tested. The suite's debtors have ids from 1000 on.
	Engine credit.Engine
	// Lease is what the root gives; 0: none, it is told of every end.
	Lease time.Duration
	// CallBack is how long who is called back may hold on. It is short, and not 0.
	CallBack time.Duration
	// Debtor is what a debtor is opened with: what concerns the clock. With leases its
	// Drift is not below the true one, and its Margin a small part of the lease.
	Debtor credit.Config
	// Check does work where it is checked: it returns an error that is
	// [credit.ErrStale] if the token was refused ([credit.Options.Fence],
	// [credit.Guard.Check]).
	Check func(r credit.Resource, c credit.Credit, t credit.Token) error
	// Cut loses all messages of a debtor, without telling anybody, until Mend. Only
	// with leases.
	Cut, Mend func(debtor credit.OwnerID)
	// Break ends the connection of a debtor, which is told, and the root, unless it
	// gives leases: then it hears nothing. The debtor connects anew to Engine.
	Break func(debtor credit.OwnerID)
	// Succeed ends the root as its process's death would, and returns the engine by which
	// debtors reach another one in its place, of another id and with an empty book, which
	// Quiet looks at from then on. What was granted before is refused by Check, and with
	// leases nothing is granted before those of the dead have ended. It takes a small part
	// of a lease.
	Succeed func(t *testing.T) credit.Engine
	// Quiet returns once the root has nothing to do, and how many resources and
	// debtors are in its book.
	Quiet func(t *testing.T) (resources, debtors int)
}

// anyhow has a request served in whatever way there is.
const anyhow = credit.MayBorrow | credit.MayRevoke

// Run runs the suite; each test has a rig of its own, and runs within in, such as
// synctest.Test or a plain call.
func Run(t *testing.T, in func(*testing.T, func(*testing.T)), start func(t *testing.T) Rig) {
	for _, c := range []struct {
		name   string
		leases bool // needs them
		run    func(*bench)
	}{
		{"Exclusion", false, exclusion},
		{"Sharing", false, sharing},
		{"Try", false, try},
		{"Cancel", false, cancel},
		{"TokensRise", false, tokens},
		{"Fencing", false, fencing},
		{"Death", false, death},
		{"WindUp", false, windUp},
		{"DeathOfCreditor", false, deathOfCreditor},
		{"Reconnecting", false, reconnecting},
		{"IdleLosesNothing", false, idle},
		{"LeaseEnds", true, leaseEnds},
		{"LeaseIsRenewed", true, renewed},
		{"ShortSilence", true, silence},
		{"DeathInLease", true, deathInLease},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				b := &bench{t: t, rig: start(t)}
				if c.leases && b.rig.Lease == 0 {
					return // it gives none
				}
				c.run(b)
				b.end()
			})
		})
	}
}

// bench is one test's debtors.
type bench struct {
	t      *testing.T
	rig    Rig
	owners []*credit.Owner
}

func (b *bench) open() *credit.Owner {
	b.t.Helper()
	cfg := b.rig.Debtor
	cfg.ID = credit.OwnerID(1000 + len(b.owners))
	o, err := credit.Open(credit.Options{Config: cfg}, b.rig.Engine)
	if err != nil {
		b.t.Fatal(err)
	}
	b.owners = append(b.owners, o)
	return o
}

// end winds all up and looks for what is left.
func (b *bench) end() {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	for _, o := range b.owners {
		if err := o.Close(ctx); err != nil {
			b.t.Errorf("close: %v", err)
		}
	}
	if resources, debtors := b.rig.Quiet(b.t); resources+debtors != 0 {
		b.t.Errorf("the root's book has %d resources and %d debtors after all have left", resources, debtors)
	}
}

func request(modes credit.Modes, first, end uint64, flags credit.Flags) credit.Request {
	return credit.Request{
		Resource: credit.Resource{Type: credit.Access, ID: 0x77},
		Credit:   credit.Make(credit.Span{First: first, End: end, Modes: modes}),
		Flags:    flags,
	}
}

func (b *bench) acquire(o *credit.Owner, r credit.Request) *credit.Hold {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	h, err := o.Acquire(ctx, r)
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

// begin acquires in the background.
func (b *bench) begin(o *credit.Owner, r credit.Request) <-chan *credit.Hold {
	c := make(chan *credit.Hold, 1)
	ctx := b.t.Context()
	go func() {
		h, err := o.Acquire(ctx, r)
		if err != nil {
			b.t.Errorf("acquire: %v", err)
		}
		c <- h
	}()
	return c
}

func (b *bench) release(h *credit.Hold) {
	b.t.Helper()
	if err := h.Release(credit.Version{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) reconnect(o *credit.Owner, e credit.Engine) {
	b.t.Helper()
	if err := o.Reconnect(e); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) check(h *credit.Hold) error {
	return b.rig.Check(h.Resource(), h.Credit(), h.Token())
}

// await waits for a channel, but not for ever.
func await[T any](b *bench, what string, c <-chan T) T {
	b.t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(time.Minute):
		b.t.Fatalf("%s does not come", what)
		panic("not reached")
	}
}

func exclusion(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	c := b.begin(y, request(credit.Write, 5, 15, anyhow))
	await(b, "the call-back", h.Wanted())
	select {
	case <-c:
		b.t.Fatal("two writers")
	default:
	}
	b.release(h)
	b.release(await(b, "the credit", c))
}

func sharing(b *bench) {
	x, y, z := b.open(), b.open(), b.open()
	r1 := b.acquire(x, request(credit.Read, 0, 10, anyhow))
	r2 := b.acquire(y, request(credit.Read, 5, 15, anyhow))
	c := b.begin(z, request(credit.Write, 0, 20, anyhow))
	await(b, "the call-back", r1.Wanted())
	await(b, "the call-back", r2.Wanted())
	b.release(r1)
	b.release(r2)
	b.release(await(b, "the credit", c))
}

func try(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	if _, err := y.Acquire(b.t.Context(), request(credit.Read, 0, 1, anyhow|credit.Try)); !errors.Is(err, credit.ErrBusy) {
		b.t.Errorf("what is held: %v", err)
	}
	if _, err := y.Acquire(b.t.Context(), request(credit.Read, 0, 1, 0)); !errors.Is(err, credit.ErrRemote) {
		b.t.Errorf("what may not be borrowed: %v", err)
	}
	b.release(h) // cached now
	b.release(b.acquire(y, request(credit.Read, 0, 1, anyhow|credit.Try)))
}

func cancel(b *bench) {
	x, y, z := b.open(), b.open(), b.open()
	h := b.acquire(x, request(credit.Read, 0, 10, anyhow))
	ctx, stop := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := y.Acquire(ctx, request(credit.Write, 0, 10, anyhow))
		done <- err
	}()
	await(b, "the call-back", h.Wanted())
	stop()
	if err := await(b, "the refusal", done); !errors.Is(err, credit.ErrCanceled) {
		b.t.Errorf("cancelled: %v", err)
	}
	b.release(b.acquire(z, request(credit.Read, 0, 10, anyhow))) // nobody is before it any more
	<-time.After(2 * b.rig.CallBack)
	if err := b.check(h); err != nil || !h.Valid() {
		b.t.Errorf("lost to who gave up: %v, valid %v", err, h.Valid())
	}
	b.release(h)
}

func tokens(b *bench) {
	owners := []*credit.Owner{b.open(), b.open(), b.open()}
	var last credit.Token
	for i := range 12 {
		h := b.acquire(owners[i%3], request(credit.Write, 0, 10, anyhow))
		if h.Token().Compare(last) <= 0 {
			b.t.Errorf("token %v after %v", h.Token(), last)
		}
		if err := b.check(h); err != nil {
			b.t.Errorf("work of its holder: %v", err)
		}
		last = h.Token()
		b.release(h)
	}
}

func fencing(b *bench) {
	x, y := b.open(), b.open()
	h := b.acquire(x, request(credit.Write, 0, 10, anyhow))
	other := b.acquire(x, request(credit.Write, 50, 60, anyhow))
	next := b.acquire(y, request(credit.Write, 0, 10, anyhow))
	if err := b.check(h); !errors.Is(err, credit.ErrStale) {
		b.t.Errorf("work of who was fenced: %v", err)
	}
	if err := b.check(next); err != nil {
		b.t.Errorf("work of the holder: %v", err)
	}
	if err := b.check(other); err != nil || !other.Valid() {
		b.t.Errorf("what nobody wanted: %v", err)
	}
	await(b, "the loss", h.Lost())
	b.release(next)
	b.release(other)
}
