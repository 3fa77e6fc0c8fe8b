package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// bystander has objects and an arena that are nobody else's business.
type bystander struct {
	t      *testing.T
	p      api.Pool
	blocks []api.Mblock
	data   [][]byte
	log    api.Mlog
	arena  []byte
}

const canary = 0xA5

func newBystander(t *testing.T, s *siege, owner uint32) *bystander {
	t.Helper()
	ctx := context.Background()
	b := &bystander{t: t, p: s.p}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		data := bytes.Repeat([]byte{byte(i), byte(i >> 8), 0x5A}, 1000*(i+1))
		m, err := s.p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data)), Owner: owner, UseSpare: true})
		must(err)
		_, err = m.Write(ctx, data)
		must(err)
		must(m.Commit(ctx))
		b.blocks, b.data = append(b.blocks, m), append(b.data, data)
	}
	var err error
	b.log, err = s.p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20, Owner: owner, UseSpare: true})
	must(err)
	must(b.log.Commit(ctx))
	app, err := b.log.OpenAppend(ctx)
	must(err)
	for i := range 100 {
		_, err := app.Append(ctx, fmt.Appendf(nil, "record %d", i), i == 99)
		must(err)
	}
	must(app.Close(ctx))
	w, err := daemon.Greeted(s.d.Socket)
	must(err)
	t.Cleanup(func() { _ = w.Close() }) // its daemon may be gone
	must(w.Conn.SetDeadline(time.Time{}))
	_, b.arena, err = w.Mapped(1 << 20)
	must(err)
	t.Cleanup(func() { must(unix.Munmap(b.arena)) })
	for i := range b.arena {
		b.arena[i] = canary
	}
	return b
}

// unharmed fails unless everything is as it was.
func (b *bystander) unharmed() {
	b.t.Helper()
	ctx := context.Background()
	for i, m := range b.blocks {
		got := make([]byte, len(b.data[i]))
		if _, err := m.ReadAtContext(ctx, got, 0); err != nil || !bytes.Equal(got, b.data[i]) {
			b.t.Errorf("mblock %d of a bystander is not as it was: %v", i, err)
		}
	}
	r, err := b.log.OpenRead(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close() // it has written nothing
	buf := make([]byte, 100)
	for i := range 100 {
		if n, err := r.Next(ctx, buf); err != nil || string(buf[:n]) != fmt.Sprint("record ", i) {
			b.t.Errorf("record %d of a bystander is %q: %v", i, buf[:n], err)
		}
	}
	for i, c := range b.arena {
		if c != canary {
			b.t.Fatalf("byte %d of a bystander's arena is %#x", i, c)
		}
	}
}

// A daemon that rests has at most this load, of one processor.
const atRest = 0.05

// proves S43: whatever clients do to their rings, at any moment, from any thread,
// the daemon lives, uses no processor once they are stopped in the middle of it,
// so nothing that they left behind makes it spin; it reaches nobody else's objects
// and memory, and all is given back when they are gone. What it uses while they
// are at it is told, and judged by nobody: a request costs its client next to
// nothing, and the machine decides what the daemon's half of it costs.
func TestRings(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/hostile -run TestRings -hostile.seed=%d -hostile.time=%v", n, n, *lasting)
	s := newSiege(t)
	owner, err := s.p.AddOwner(context.Background(), "bystander", 0)
	if err != nil {
		t.Fatal(err)
	}
	b := newBystander(t, s, owner)
	b.unharmed()
	s.remember()
	var list []attack
	for _, x := range attacks {
		if strings.HasPrefix(x.name, "ring-") && (*only == "" || strings.Contains(*only, x.name)) {
			list = append(list, x)
		}
	}
	for i, x := range list {
		s.press(x.name, n+uint64(i), *lasting/time.Duration(len(list)))
		b.unharmed()
		if t.Failed() {
			return
		}
	}
	s.sessions = 2 // the bystander's arena has one
	s.sweep(owner)
	s.recovered()
}

// press lets one attack be, stops it in the middle, and looks at what the daemon
// does meanwhile.
func (s *siege) press(name string, seed uint64, slot time.Duration) {
	s.t.Helper()
	p := s.start(name, seed)
	p.expect("begun")
	var most, rest float64
	rounds := max(1, min(5, int(slot/time.Second)))
	for range rounds {
		theirs, began := tree(s.t, p.cmd.Process.Pid), time.Now()
		ours := s.d.Usage().Processor
		time.Sleep(slot / time.Duration(rounds) / 2) // what is measured
		took := time.Since(began).Seconds()
		theirs = tree(s.t, p.cmd.Process.Pid) - theirs
		ours = s.d.Usage().Processor - ours
		// A child that has ended took its time along.
		most = max(most, ours.Seconds()/max(theirs.Seconds(), 0.01*took))
		s.signal(p.cmd.Process.Pid, syscall.SIGSTOP)
		rest = 1
		for end := time.Now().Add(daemon.Patience); rest >= atRest && time.Now().Before(end); {
			rest = s.d.Load(200 * time.Millisecond)
		}
		s.signal(p.cmd.Process.Pid, syscall.SIGCONT)
		if rest >= atRest {
			s.t.Errorf("%s: its clients are stopped, and the daemon uses %.2f of a processor", name, rest)
		}
	}
	p.stop()
	s.t.Logf("%-18s the daemon used %.2f times the attackers' processor time, and %.3f of a processor when they were stopped; %s",
		name, most, rest, told([]*process{p}))
	if !s.d.Running() {
		s.t.Fatalf("the daemon has died by %s:\n%s", name, s.d.Log())
	}
}

// signal sends a signal to a process and its children.
func (s *siege) signal(pid int, what syscall.Signal) {
	for _, pid := range append(children(pid), pid) {
		_ = syscall.Kill(pid, what) // it may have ended
	}
}

func children(pid int) (list []int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	for _, e := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, e.Name()))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// tree returns the processor time of a process and its children.
func tree(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	for _, pid := range append(children(pid), pid) {
		if u, err := daemon.UsageOf(pid); err == nil {
			sum += u.Processor
		}
	}
	return sum
}

// proves S43 S46: a pool can be deactivated, and made active again, while rings
// are full of requests for its objects: those get answers, and nothing stays.
func TestRingsOfPoolsThatGo(t *testing.T) {
	s := newSiege(t)
	ctx := context.Background()
	drive := daemon.Drive(t, 256<<20)
	if _, err := s.c.CreatePool(ctx, "going", []string{drive}, api.CreateOptions{Mode: 0o666}); err != nil {
		t.Fatal(err)
	}
	a := testAttacker(t, s, 1)
	a.poolName = "going"
	s.warmUp(a)
	s.remember()
	refused, gone := 0, 0
	for round := range max(4, int(*lasting/(2*time.Second))) {
		var list []*stage
		for range 3 {
			if st := a.stage(64); st != nil {
				list = append(list, st)
			}
		}
		if len(list) == 0 {
			t.Fatal("no session with a ring")
		}
		for range 5 {
			for _, st := range list {
				for st.r.ask(st.proper()) {
				}
			}
			for _, st := range list {
				st.r.take()
				st.alive()
			}
		}
		if round%2 == 0 {
			for _, st := range list { // in the middle of it
				for st.r.ask(st.proper()) {
				}
				st.throw(ioctl.OpClose, &ioctl.Target{Handle: st.pool})
			}
		}
		done := make(chan error, 1)
		go func() { done <- s.c.DeactivatePool(ctx, "going") }()
		if round%3 == 0 {
			for _, st := range list {
				st.close()
			}
		}
		err := <-done
		switch {
		case err == nil:
			gone++
		case errors.Is(err, api.EBUSY):
			refused++
		default:
			t.Fatalf("deactivate: %v", err)
		}
		if round%3 != 0 {
			for _, st := range list {
				st.work(50)
				st.close()
			}
		}
		daemon.Eventually(t, "the pool is nobody's", func() bool {
			return err == nil || s.c.DeactivatePool(ctx, "going") == nil
		})
		if _, err := s.c.ActivatePool(ctx, "going", nil, api.ActivateOptions{}); err != nil {
			t.Fatalf("activate: %v", err)
		}
	}
	t.Logf("deactivated %d times in the middle of it, refused %d times", gone, refused)
	s.recovered()
	if err := s.c.DeactivatePool(ctx, "going"); err != nil { // its drive goes before the daemon
		t.Error(err)
	}
}

// warmUp has the daemon start what the first ring needs, which stays.
func (s *siege) warmUp(a *attacker) {
	s.t.Helper()
	st := a.stage(64)
	if st == nil || !st.work(100) {
		s.t.Fatal("no session with a ring")
	}
	st.close()
	s.sessions = 1
	s.emptied()
	daemon.Eventually(s.t, "pools rest", func() bool {
		return s.d.Goroutines()["github.com/mpool-go/mpool/sched.(*Sched).Go"] == 0
	})
}

// testAttacker is an attacker in the test's own process.
func testAttacker(t *testing.T, s *siege, seed uint64) *attacker {
	t.Helper()
	var sent, made atomic.Int64
	a := newAttacker(t.Context(), s.d.Socket, seed, 0, &sent, &made)
	a.patience = daemon.Patience // what it asks for must come
	return a
}
