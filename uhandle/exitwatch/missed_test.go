package exitwatch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// crowd are many processes, each with a vigil by the Source and its pidfd.
type crowd struct {
	t       *testing.T
	v       *victim // their parent
	members []*uhandle.Process
	vigils  []*uhandle.Vigil
	by      []chan string // by what each death was noticed
	acted   []atomic.Int32
}

// gather starts n processes.
func gather(t *testing.T, s *Source, n int) *crowd {
	t.Helper()
	c := &crowd{t: t, v: victimOf(t, "spawn", itoa(n)), acted: make([]atomic.Int32, n)}
	c.v.start()
	for i := range n {
		p := c.v.process(c.v.number())
		by := make(chan string, 1)
		vigil, err := uhandle.Watch(p, []uhandle.Source{s, uhandle.Pidfd{}}, func(source string) {
			if c.acted[i].Add(1) == 1 {
				by <- source
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		c.members, c.vigils, c.by = append(c.members, p), append(c.vigils, vigil), append(c.by, by)
	}
	c.v.expect("ready")
	return c
}

// kill kills all at once, their parent included.
func (c *crowd) kill() {
	c.t.Helper()
	if err := unix.Kill(-c.v.cmd.Process.Pid, unix.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
}

// count waits until all are noticed and returns by what how many were.
func (c *crowd) count() map[string]int {
	c.t.Helper()
	by := make(map[string]int)
	for i, noticed := range c.by {
		by[soon(c.t, "a death is noticed", noticed)]++
		// Each once, and as it was; Verdict waits for that.
		if d := c.vigils[i].Verdict(); d.Cause != uhandle.CauseUnknown && d.Signal != int(unix.SIGKILL) {
			c.t.Errorf("%+v", d)
		}
	}
	return by
}

// disperse stops the vigils: nothing more can be told after.
func (c *crowd) disperse() {
	c.t.Helper()
	for i, vigil := range c.vigils {
		vigil.Stop()
		if n := c.acted[i].Load(); n != 1 {
			c.t.Errorf("a death was told %d times", n)
		}
		c.members[i].Close()
	}
	c.v.wait()
}

// A thousand that die at once are all noticed, each once, and nothing is left.
//
// proves S34
func TestStorm(t *testing.T) {
	s := open(t, Options{})
	const size = 1000
	total := 0
	for total < *deaths {
		c := gather(t, s, size)
		if n := entries(t, s); n != size {
			t.Errorf("%d of %d are in the kernel's map", n, size)
		}
		c.kill()
		by := c.count()
		barrier(t, s)
		c.disperse()
		if total == 0 {
			t.Logf("noticed by %v; %+v", by, s.Stats())
		}
		total += size + 1 // the barrier's
	}
	if st := s.Stats(); st.Noticed+st.Lost != uint64(total) {
		t.Errorf("of %d deaths: %+v", total, st)
	}
	t.Logf("%d deaths: %+v", total, s.Stats())
}

// Of the many that are watched, those that die are told and no others.
func TestManyWatched(t *testing.T) {
	s := open(t, Options{})
	size := 2000
	if *deaths >= 100000 {
		size = 10000
	}
	c := gather(t, s, size)
	if n := entries(t, s); n != size {
		t.Errorf("%d of %d are in the kernel's map", n, size)
	}
	for _, i := range []int{0, size / 2, size - 1} {
		if err := unix.Kill(int(c.members[i].PID), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		soon(t, "the death is noticed", c.by[i])
		c.by[i] <- "told"
	}
	barrier(t, s)
	acted := 0
	for i := range c.acted {
		acted += int(c.acted[i].Load())
	}
	if acted != 3 {
		t.Errorf("%d of %d are told dead, of whom 3 are", acted, size)
	}
	c.kill()
	c.count()
	c.disperse()
}

// When the program is taken from the tracepoint while it runs, the pidfds notice
// every death.
//
// proves S34
//
// It is told once, and a Source that notices again is up again.
func TestDetached(t *testing.T) {
	var troubles []error
	s := open(t, Options{Trouble: func(err error) { troubles = append(troubles, err) }})
	c := gather(t, s, 200)
	s.age(t, watchedLong)
	s.detach(t)
	c.kill()
	if by := c.count(); by["pidfd"] != 200 {
		t.Errorf("noticed by %v", by)
	}
	if !s.Stats().Up {
		t.Error("it is down before anybody has missed its news")
	}
	c.disperse()
	if len(troubles) != 1 || s.Stats().Up {
		t.Errorf("told %v, up is %v", troubles, s.Stats().Up)
	}
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	v := start(t, "wait")
	n := watchIt(t, s, v.p)
	v.signal(unix.SIGKILL)
	n.death()
	if !s.Stats().Up {
		t.Error("it notices, and is not up")
	}
}

// age makes all watches as if they had begun so long ago.
func (s *Source) age(t *testing.T, by time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		for ; w != nil; w = w.next {
			w.from = w.from.Add(-by)
		}
	}
}

// Those that were dying before they were watched, and those that are told while
// somebody else has noticed and stops their watch, are no reason to think that the
// program is gone.
func TestNotMissed(t *testing.T) {
	s := open(t, Options{Trouble: func(err error) { t.Errorf("told %v", err) }})
	for range 2 * silentMost {
		v := start(t, "exit", "5")
		v.tell()
		v.wait()
		watchIt(t, s, v.p).stop()
	}
	for range 20 {
		c := gather(t, s, 20)
		s.age(t, watchedLong)
		var stops sync.WaitGroup
		for i, p := range c.members {
			stops.Go(func() { awaitDead(p); c.vigils[i].Stop() })
		}
		c.kill()
		stops.Wait()
		for i, p := range c.members {
			// One whose watch was stopped in time is not told.
			if n := c.acted[i].Load(); n > 1 {
				t.Errorf("a death was told %d times", n)
			}
			p.Close()
		}
		c.v.wait()
	}
	if !s.Stats().Up {
		t.Error("it is down")
	}
}

// When the ring is full, because nobody reads, the kernel counts what it cannot
// tell and the pidfds notice every death.
//
// proves S34
func TestRingOverrun(t *testing.T) {
	const size = 1000
	room := os.Getpagesize() / (recordSize + 8) // with the kernel's header
	var troubles []error
	s := open(t, Options{Ring: os.Getpagesize(), Trouble: func(err error) { troubles = append(troubles, err) }})
	// Hold the one goroutine that reads the ring.
	first := start(t, "wait")
	held, release := make(chan struct{}), make(chan struct{})
	stop, err := s.Watch(first.p, func(uhandle.Death) {
		close(held)
		<-release
	})
	if err != nil {
		t.Fatal(err)
	}
	first.signal(unix.SIGKILL)
	soon(t, "a death is noticed", held)
	c := gather(t, s, size)
	s.age(t, watchedLong)
	c.kill()
	for _, p := range c.members {
		awaitDead(p)
	}
	if lost := s.Stats().Lost; lost < uint64(max(1, size-room)) {
		t.Errorf("the ring had no room for %d of %d; it is one of %d", lost, size, room)
	}
	close(release)
	by := c.count()
	barrier(t, s) // it goes on
	c.disperse()
	stop()
	if len(troubles) == 0 || !strings.Contains(troubles[0].Error(), "found no room") {
		t.Errorf("told %v", troubles)
	}
	st := s.Stats()
	if by["bpf"]+by["pidfd"] != size || uint64(by["pidfd"]) < st.Lost || st.Noticed+st.Lost != size+2 {
		t.Errorf("noticed by %v; %+v", by, st)
	}
	t.Logf("noticed by %v; %+v", by, st)
}

// awaitDead returns when a process's pidfd says that it is dead.
func awaitDead(p *uhandle.Process) {
	var wg sync.WaitGroup
	wg.Add(1)
	stop, err := uhandle.Pidfd{}.Watch(p, func(uhandle.Death) { wg.Done() })
	if err != nil {
		panic(err)
	}
	wg.Wait()
	stop()
}

// When the map is full the watch fails, is counted, and the pidfd goes on.
func TestMapFull(t *testing.T) {
	s := open(t, Options{Processes: 1})
	one, other := start(t, "wait"), start(t, "wait")
	n := watchIt(t, s, one.p)
	noticed := make(chan string, 1)
	vigil, err := uhandle.Watch(other.p, []uhandle.Source{s, uhandle.Pidfd{}}, func(by string) { noticed <- by })
	if err == nil {
		t.Error("a map for one has taken two")
	}
	defer vigil.Stop()
	other.signal(unix.SIGKILL)
	if by := soon(t, "the death is noticed", noticed); by != "pidfd" || s.Stats().Refused != 1 {
		t.Errorf("noticed by %s; %+v", by, s.Stats())
	}
	n.stop()
	// What is stopped makes room.
	third := start(t, "wait")
	n = watchIt(t, s, third.p)
	third.signal(unix.SIGKILL)
	n.death()
}

// One who is dead before it is watched is for the pidfd to notice.
func TestDeadBefore(t *testing.T) {
	s := open(t, Options{})
	v := start(t, "exit", "5")
	v.tell()
	v.wait()
	noticed := make(chan string, 1)
	vigil, err := uhandle.Watch(v.p, []uhandle.Source{s, uhandle.Pidfd{}}, func(by string) { noticed <- by })
	if err != nil {
		t.Fatal(err)
	}
	if by := soon(t, "the death is noticed", noticed); by != "pidfd" {
		t.Errorf("noticed by %s", by)
	}
	vigil.Stop()
}

// The program stays attached for as long as the Source is open, however often
// garbage is collected.
func TestStaysAttached(t *testing.T) {
	s := open(t, Options{})
	v := start(t, "wait")
	n := watchIt(t, s, v.p)
	for range 5 {
		runtime.GC()
	}
	v.signal(unix.SIGKILL)
	n.death()
}

// A process that several watch is told to each; one that has stopped is not
// told, and one that stops while it is told has been when stop returns.
func TestSeveralWatches(t *testing.T) {
	s := open(t, Options{})
	for round := range 200 {
		v := start(t, "wait")
		var mu sync.Mutex
		stopped := make([]bool, 6)
		var all []*news
		var stops []func()
		for i := range stopped {
			if i%2 == 0 {
				all = append(all, watchIt(t, s, v.p))
				continue
			}
			stop, err := s.Watch(v.p, func(uhandle.Death) {
				mu.Lock()
				defer mu.Unlock()
				if stopped[i] {
					t.Error("told after stop")
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			stops = append(stops, func() {
				stop()
				mu.Lock()
				defer mu.Unlock()
				stopped[i] = true
			})
		}
		if n := entries(t, s); n != 1 {
			t.Fatalf("round %d: %d processes in the map", round, n)
		}
		v.signal(unix.SIGKILL)
		var wg sync.WaitGroup
		for _, stop := range stops {
			wg.Go(stop)
		}
		wg.Wait()
		for _, n := range all {
			n.death()
			n.stop()
			if c := n.times.Load(); c != 1 {
				t.Errorf("told %d times", c)
			}
		}
	}
}

// What is stopped after Close, or asked of a closed Source, is harmless.
func TestClosed(t *testing.T) {
	open(t, Options{}) // or skip
	s, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := start(t, "wait")
	stop, err := s.Watch(v.p, func(uhandle.Death) { t.Error("told by a closed source") })
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := s.Watch(v.p, func(uhandle.Death) {}); !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
	if st := s.Stats(); st.Up {
		t.Errorf("a closed source is up: %+v", st)
	}
	v.signal(unix.SIGKILL)
	v.wait()
	stop()
	stop()
}

// Two capabilities are all that it takes, and who has them not is told so.
func TestPermission(t *testing.T) {
	open(t, Options{}) // or skip
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch, "self")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for want, capabilities := range map[string][]uintptr{
		"not permitted true: watch exits: it takes CAP_BPF and CAP_PERFMON: operation not permitted\n": nil,
		"opened\n": {unix.CAP_BPF, unix.CAP_PERFMON},
	} {
		cmd := exec.Command(path)
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), childEnv+"=nobody")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: capabilities,
		}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("with %v: %q, %v", capabilities, out, err)
		}
	}
}

// openAsNobody says whether a user of few rights may open a Source.
func openAsNobody() {
	s, err := Open(Options{})
	if err != nil {
		fmt.Printf("not permitted %v: %v\n", errors.Is(err, os.ErrPermission), err)
		return
	}
	s.Close()
	fmt.Println("opened")
}
