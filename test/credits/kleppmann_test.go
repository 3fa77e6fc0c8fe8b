package credits

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// proves G42, G44: the replay of Kleppmann between processes, on a log. One appends in
// its ring and is stopped at any moment; its credit is taken; the next one appends; the
// first one resumes, knows nothing, and what it appends is refused, then and later. In
// the log is what the first one had appended, and then what the next one did, and
// nothing else.
func TestKleppmannReplay(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-credits.seed=%d", n)
	rng := rand.New(rand.NewPCG(n, 0))
	b := newBench(t, "[credits]\ncall_back = '100ms'\n")
	p, q := start(t, b.d), start(t, b.d)
	for range 3 {
		log := b.mlog()
		first := p.ok(order{Verb: "ring acquire", ID: log, Mode: credit.Append})
		p.ok(order{Verb: "ring open", ID: log})
		p.begin(order{Verb: "ring stream"})
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // any moment will do
		p.signal(syscall.SIGSTOP)
		next := q.ok(order{Verb: "ring acquire", ID: log, Mode: credit.Append})
		q.ok(order{Verb: "ring open", ID: log})
		q.ok(order{Verb: "ring append", Data: []byte("of the next 0")})
		p.signal(syscall.SIGCONT)
		stopped := p.result()
		if stopped.Code != api.ESTALE.Error() || next.Token.Compare(first.Token) <= 0 {
			t.Fatalf("the first one: %+v; tokens %v and %v", stopped, first.Token, next.Token)
		}
		q.ok(order{Verb: "ring append", Data: []byte("of the next 1")})
		for range 3 {
			p.fails(api.ESTALE, order{Verb: "ring append", Data: []byte("late")})
		}
		p.fails(credit.ErrStale, order{Verb: "ring release"})
		q.ok(order{Verb: "ring release"})
		p.fails(api.ESTALE, order{Verb: "ring append", Data: []byte("later still")})
		q.ok(order{Verb: "ring append", Data: []byte("of the next 2")})
		b.holds(log, stopped.N, []string{"of the next 0", "of the next 1", "of the next 2"})
		p.kill() // with what it has open
		p = start(t, b.d)
		q.kill()
		q = start(t, b.d)
	}
	p.kill()
	q.kill()
	b.residue()
}

// holds looks whether a log has the records of the first one, of which so many were
// acknowledged and one was under way, and then those of the next.
func (b *bench) holds(id layout.ObjectID, acked int, next []string) {
	b.t.Helper()
	p, err := b.d.Dial().OpenPool(ctx, poolName)
	if err != nil {
		b.t.Fatal(err)
	}
	log, err := p.Mlog(ctx, id)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := log.OpenRead(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	var there []string
	for buf := make([]byte, 100); ; {
		n, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.t.Fatal(err)
		}
		there = append(there, string(buf[:n]))
	}
	if err := errors.Join(r.Close(), log.Put(), p.Close()); err != nil {
		b.t.Error(err)
	}
	firsts := len(there) - len(next)
	if firsts < acked || firsts > acked+1 || !slices.Equal(there[firsts:], next) {
		b.t.Fatalf("%d of the first one's records were acknowledged; there are %d, the last are %q", acked, len(there), there[max(0, len(there)-6):])
	}
	for i := range firsts {
		if there[i] != streamed(i) {
			b.t.Fatalf("record %d is %q", i, there[i])
		}
	}
}

// proves G44: what a fenced process writes, commits and reads in its ring is refused,
// whatever became of the object meanwhile.
func TestStoppedInItsRing(t *testing.T) {
	b := newBench(t, "[credits]\ncall_back = '100ms'\n")
	id := b.mblock()
	p, q := start(t, b.d), start(t, b.d)
	made := p.ok(order{Verb: "ring alloc"}).ID
	p.ok(order{Verb: "ring write"})
	r := start(t, b.d)
	r.ok(order{Verb: "ring open", ID: id})
	r.ok(order{Verb: "ring read"})
	p.signal(syscall.SIGSTOP)
	r.signal(syscall.SIGSTOP)
	q.ok(order{Verb: "acquire", ID: made, Mode: credit.Write})
	q.ok(order{Verb: "acquire", ID: id, Mode: credit.Delete, Slot: 1})
	h := q.ok(order{Verb: "find", ID: id}).Handle
	q.ok(order{Verb: "delete", Handle: h})
	p.signal(syscall.SIGCONT)
	r.signal(syscall.SIGCONT)
	for range 2 {
		p.fails(api.ESTALE, order{Verb: "ring write"})
		p.fails(api.ESTALE, order{Verb: "ring commit"})
		r.fails(api.ESTALE, order{Verb: "ring read"})
	}
	q.ok(order{Verb: "release"})
	q.fails(api.ENOENT, order{Verb: "find", ID: made}) // nobody could commit it
	for _, x := range []*process{p, q, r} {
		x.kill()
	}
	b.residue()
	if n := len(b.events(ioctl.EventRevoked)); n < 2 {
		t.Errorf("%d events tell of what was taken, want those of two objects", n)
	}
}
