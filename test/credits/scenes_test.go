package credits

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// scene is three processes, and an object of which nobody has anything.
type scene struct {
	*bench
	p, q, r *process
	id      layout.ObjectID
}

// play has each scenario played by the same processes, with an object of its own. What
// they have cached then goes back, and nothing may be left.
func (b *bench) play(list map[string]func(*scene)) {
	b.t.Helper()
	p, q, r := start(b.t, b.d), start(b.t, b.d), start(b.t, b.d)
	for name, run := range list {
		whole := b.t
		whole.Run(name, func(t *testing.T) {
			b.t, p.t, q.t, r.t = t, t, t, t
			defer func() { b.t, p.t, q.t, r.t = whole, whole, whole, whole }()
			s := &scene{bench: b, p: p, q: q, r: r, id: b.mblock()}
			run(s)
			daemon.Eventually(t, "all is given back", func() bool {
				for _, x := range []*process{p, q, r} { // what is just being taken is not cached yet
					x.ok(order{Verb: "give back", ID: s.id, Mode: credit.Read | credit.Append | credit.Write | credit.Delete})
				}
				return len(b.list()) == 0
			})
		})
	}
}

// onlyCached is Not of what is served without asking anybody, or not at all.
const onlyCached = credit.MayBorrow | credit.MayRevoke

// take is an order for modes of bytes; end 0: to the end.
func (s *scene) take(m credit.Modes, first, end uint64) order {
	return order{Verb: "acquire", ID: s.id, Mode: m, First: first, End: end}
}

// use acquires and releases, so that it is cached afterwards.
func (s *scene) use(p *process, o order) {
	s.t.Helper()
	p.ok(o)
	p.ok(order{Verb: "release", Slot: o.Slot})
}

// has looks whether a process has modes of bytes cached.
func (s *scene) has(p *process, m credit.Modes, first, end uint64) {
	s.t.Helper()
	o := s.take(m, first, end)
	o.Not = onlyCached
	s.use(p, o)
}

func (s *scene) hasNot(p *process, m credit.Modes, first, end uint64) {
	s.t.Helper()
	o := s.take(m, first, end)
	o.Not = onlyCached
	p.fails(credit.ErrRemote, o)
}

// after has b get what it wants when a lets go of what conflicts, and not before.
func (s *scene) after(a *process, has order, b *process, want order) {
	s.t.Helper()
	first := a.ok(has)
	b.begin(want)
	s.waiting(b)
	s.told(a, has.Slot)
	a.ok(order{Verb: "release", Slot: has.Slot})
	next := b.result()
	if next.Code != "" || next.Token.Compare(first.Token) <= 0 {
		s.t.Errorf("the next one: %+v, after token %v", next, first.Token)
	}
	b.ok(order{Verb: "release", Slot: want.Slot})
}

// told waits until a holder hears that others wait.
func (s *scene) told(p *process, slot int) {
	s.t.Helper()
	daemon.Eventually(s.t, "the holder is called back", func() bool { return p.ok(order{Verb: "wanted", Slot: slot}).Valid })
}

// proves G40, G41, G42, G46: the scenarios of a read-write lock between processes.
func TestScenariosReadWrite(t *testing.T) {
	const both = credit.Read | credit.Write
	b := newBench(t, "")
	b.play(map[string]func(*scene){
		"read idle":  func(s *scene) { s.use(s.p, s.take(credit.Read, 0, 0)); s.has(s.p, credit.Read, 5, 6) },
		"write idle": func(s *scene) { s.use(s.p, s.take(both, 0, 0)); s.has(s.p, credit.Write, 5, 6) },
		"read while read": func(s *scene) {
			for _, x := range []*process{s.p, s.q, s.r} {
				x.ok(s.take(credit.Read, 0, 0))
			}
			for _, x := range []*process{s.p, s.q, s.r} {
				x.ok(order{Verb: "release"})
			}
			s.use(s.r, s.take(credit.Write, 0, 0)) // the others' go back
			s.hasNot(s.p, credit.Read, 0, 1)
			s.hasNot(s.q, credit.Read, 0, 1)
		},
		"read while write":  func(s *scene) { s.after(s.p, s.take(both, 0, 0), s.q, s.take(credit.Read, 0, 0)) },
		"write while read":  func(s *scene) { s.after(s.p, s.take(credit.Read, 0, 0), s.q, s.take(both, 0, 0)) },
		"write while write": func(s *scene) { s.after(s.p, s.take(both, 0, 0), s.q, s.take(both, 0, 0)) },
		"wind-up gives all back": func(s *scene) {
			x := start(s.t, s.d)
			s.use(x, s.take(credit.Read, 0, 0))
			s.use(s.p, s.take(credit.Read, 0, 0))
			x.ok(order{Verb: "wind up"})
			x.fails(credit.ErrClosed, s.take(credit.Read, 0, 0))
			s.p.ok(order{Verb: "give back", ID: s.id, Mode: credit.Read})
			s.residue()
			o := s.take(credit.Write, 0, 0)
			o.Not = credit.MayRevoke // nothing is to be called back
			s.use(s.q, o)
			x.kill()
		},
		"from the creditor's cache": func(s *scene) {
			s.use(s.p, s.take(both, 0, 0))
			o := s.take(both, 0, 0)
			o.Not = credit.MayRevoke
			s.q.fails(credit.ErrRemote, o)
			s.p.ok(order{Verb: "give back", ID: s.id, Mode: both})
			s.residue()
			s.use(s.q, o)
		},
		"try": func(s *scene) {
			s.p.ok(s.take(credit.Write, 0, 0))
			o := s.take(credit.Read, 0, 0)
			o.Try = true
			s.q.fails(credit.ErrBusy, o)
			if s.p.ok(order{Verb: "wanted"}).Valid || !s.p.ok(order{Verb: "valid"}).Valid {
				s.t.Error("who only tries has called back what is held")
			}
			s.p.ok(order{Verb: "release"})
			s.use(s.q, o) // what is cached goes at once
		},
		"upgrade": func(s *scene) {
			s.use(s.p, s.take(credit.Read, 0, 0))
			s.use(s.q, s.take(credit.Read, 0, 0))
			s.use(s.p, s.take(both, 0, 0))
			s.hasNot(s.q, credit.Read, 0, 1)
			s.has(s.p, both, 0, 0)
			s.after(s.q, s.take(credit.Read, 0, 0), s.p, s.take(credit.Write, 0, 0))
		},
		"two upgrade": func(s *scene) { // neither keeps what it had while it waits
			s.use(s.p, s.take(credit.Read, 0, 0))
			s.use(s.q, s.take(credit.Read, 0, 0))
			s.r.ok(s.take(credit.Read, 0, 0))
			s.p.begin(s.take(both, 0, 0))
			s.waiting(s.p)
			s.q.begin(s.take(both, 0, 0))
			s.waiting(s.q)
			s.r.ok(order{Verb: "release"})
			x := s.p.result()
			s.p.ok(order{Verb: "release"})
			y := s.q.result()
			s.q.ok(order{Verb: "release"})
			if x.Code != "" || y.Code != "" || x.Token == y.Token {
				s.t.Errorf("%+v, %+v", x, y)
			}
		},
		"downgrade": func(s *scene) { // only what conflicts goes
			s.use(s.p, s.take(both, 0, 0))
			s.use(s.q, s.take(credit.Read, 0, 0))
			s.has(s.p, credit.Read, 0, 0)
			s.hasNot(s.p, credit.Write, 0, 1)
		},
	})
}

// proves G42, G45: the scenarios of ranges between processes. Who does not meet does
// not wait; of what is called back only what conflicts goes.
func TestScenariosRanges(t *testing.T) {
	b := newBench(t, "")
	b.play(map[string]func(*scene){
		"disjoint": func(s *scene) {
			for i, x := range []*process{s.p, s.q, s.r} {
				x.ok(s.take(credit.Write, uint64(i)*100, uint64(i+1)*100))
			}
			for _, x := range []*process{s.p, s.q, s.r} {
				if x.ok(order{Verb: "wanted"}).Valid {
					s.t.Error("called back for who does not conflict")
				}
				x.ok(order{Verb: "release"})
			}
		},
		"overlap of two": func(s *scene) {
			s.p.ok(s.take(credit.Write, 0, 100))
			s.q.ok(s.take(credit.Write, 100, 200))
			far := s.take(credit.Write, 200, 300)
			far.Slot = 1
			s.q.ok(far)
			s.r.begin(s.take(credit.Write, 50, 150))
			s.waiting(s.r)
			s.told(s.p, 0)
			s.told(s.q, 0)
			if s.q.ok(order{Verb: "wanted", Slot: 1}).Valid {
				s.t.Error("called back what does not conflict")
			}
			s.p.ok(order{Verb: "release"})
			s.waiting(s.r)
			s.q.ok(order{Verb: "release"})
			if r := s.r.result(); r.Code != "" {
				s.t.Errorf("%+v", r)
			}
			s.r.ok(order{Verb: "release"})
			s.q.ok(order{Verb: "release", Slot: 1})
			s.has(s.p, credit.Write, 0, 50)
			s.has(s.q, credit.Write, 150, 300)
		},
		"split on revoke": func(s *scene) {
			s.use(s.p, s.take(credit.Write, 0, 300))
			s.use(s.q, s.take(credit.Write, 100, 200))
			s.has(s.p, credit.Write, 0, 100)
			s.has(s.p, credit.Write, 200, 300)
			s.hasNot(s.p, credit.Write, 100, 101)
			s.hasNot(s.p, credit.Write, 199, 200)
			s.use(s.p, s.take(credit.Write, 0, 300)) // and together again
			s.has(s.p, credit.Write, 0, 300)
			s.hasNot(s.q, credit.Write, 100, 101)
		},
		"partial release": func(s *scene) {
			s.use(s.p, s.take(credit.Write, 0, 300))
			s.p.ok(order{Verb: "give back", ID: s.id, Mode: credit.Write, First: 0, End: 100})
			daemon.Eventually(s.t, "it has come back", func() bool {
				l := s.list()
				return len(l) == 1 && l[0].First == 100 && l[0].End == 300
			})
			o := s.take(credit.Write, 0, 100)
			o.Not = credit.MayRevoke
			s.use(s.q, o)
			o.End = 101
			s.q.fails(credit.ErrRemote, o)
			s.has(s.p, credit.Write, 100, 300)
			s.hasNot(s.p, credit.Write, 99, 100)
		},
		"upgrade of a part": func(s *scene) {
			s.use(s.p, s.take(credit.Read, 0, 300))
			s.use(s.q, s.take(credit.Read, 0, 300))
			s.use(s.p, s.take(credit.Write, 100, 200))
			s.has(s.p, credit.Read, 0, 300)
			s.has(s.q, credit.Read, 0, 100)
			s.has(s.q, credit.Read, 200, 300)
			s.hasNot(s.q, credit.Read, 100, 101)
		},
		"appender beside readers": func(s *scene) {
			s.p.ok(s.take(credit.Read, 0, 100))
			s.q.ok(s.take(credit.Append, 0, 0))
			s.r.begin(s.take(credit.Append, 0, 0))
			s.waiting(s.r)
			if s.p.ok(order{Verb: "wanted"}).Valid {
				s.t.Error("a reader was called back for an appender")
			}
			s.q.ok(order{Verb: "release"})
			if r := s.r.result(); r.Code != "" {
				s.t.Errorf("%+v", r)
			}
			s.r.ok(order{Verb: "release"})
			s.p.ok(order{Verb: "release"})
		},
	})
}

// proves G40, G42, G43: what somebody waited for and gave up stays with its holder, past
// the deadline too; of who was stopped only that is taken for which others wait.
func TestScenariosDeadline(t *testing.T) {
	b := newBench(t, "[credits]\ncall_back = '300ms'\n")
	b.play(map[string]func(*scene){
		"given up": func(s *scene) {
			near, far := s.take(credit.Write, 0, 100), s.take(credit.Write, 200, 300)
			far.Slot = 1
			s.p.ok(near)
			s.p.ok(far)
			soon := s.take(credit.Read, 50, 60)
			soon.Within = 20 * time.Millisecond
			s.q.fails(credit.ErrTimeout, soon)
			daemon.Eventually(s.t, "nobody waits", func() bool {
				return !slices.ContainsFunc(s.list(), func(i ioctl.CreditInfo) bool { return i.State == ioctl.CreditWaiting })
			})
			s.q.ok(s.take(credit.Read, 250, 260)) // its deadline is the later one
			s.p.ok(order{Verb: "lost", Slot: 1})
			if !s.p.ok(order{Verb: "valid"}).Valid {
				s.t.Error("it has lost what nobody waits for")
			}
			s.p.ok(order{Verb: "release"})
			s.p.fails(credit.ErrStale, order{Verb: "release", Slot: 1})
			s.q.ok(order{Verb: "release"})
		},
		"fenced of a part": func(s *scene) {
			s.p.ok(s.take(credit.Write, 0, 100))
			far := s.take(credit.Write, 200, 300)
			far.Slot = 1
			s.p.ok(far)
			s.p.signal(syscall.SIGSTOP)
			s.use(s.q, s.take(credit.Write, 50, 60))
			s.p.signal(syscall.SIGCONT)
			s.p.ok(order{Verb: "lost"})
			s.p.fails(credit.ErrStale, order{Verb: "release"})
			if !s.p.ok(order{Verb: "valid", Slot: 1}).Valid {
				s.t.Error("it has lost what nobody wanted")
			}
			s.p.ok(order{Verb: "release", Slot: 1})
			s.has(s.q, credit.Write, 50, 60)
		},
	})
}
