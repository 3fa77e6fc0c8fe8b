package uhandle

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// vigil is a Vigil whose act can be waited for.
func (o *offspring) vigil(sources ...Source) (*Vigil, <-chan struct{}, *atomic.Int32) {
	o.t.Helper()
	acted, times := make(chan struct{}), new(atomic.Int32)
	v, err := Watch(o.p, sources, func(string) {
		if times.Add(1) == 1 {
			close(acted)
		}
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(v.Stop)
	return v, acted, times
}

func soon(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(3 * time.Minute):
		t.Fatalf("never: %s", what)
	}
}

// How a process ended is told as waitpid tells it, whether its parent has
// taken note of the end or not.
//
// proves S33
func TestDeathIsTold(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         Death
	}{
		{"exit 0", "exit 0", Death{Cause: CauseExit}},
		{"exit 7", "exit 7", Death{Cause: CauseExit, Code: 7}},
		{"exit 255", "exit 255", Death{Cause: CauseExit, Code: 255}},
		{"killed", "kill -KILL $$", Death{Cause: CauseSignal, Signal: int(unix.SIGKILL)}},
		{"terminated", "kill -TERM $$", Death{Cause: CauseSignal, Signal: int(unix.SIGTERM)}},
		{"core", "ulimit -c unlimited; kill -QUIT $$", Death{Cause: CauseSignal, Signal: int(unix.SIGQUIT)}},
	} {
		for _, reaped := range []bool{false, true} {
			name := c.name + ", unreaped"
			if reaped {
				name = c.name + ", reaped"
			}
			t.Run(name, func(t *testing.T) {
				o := shell(t, c.script)
				var v *Vigil
				var acted <-chan struct{}
				if reaped {
					o.tell()
					c.want.Core = o.wait().Core
					v, acted, _ = o.vigil(Pidfd{})
				} else {
					v, acted, _ = o.vigil(Pidfd{})
					o.tell()
				}
				soon(t, "it is noticed", acted)
				got := v.Verdict()
				if !reaped {
					c.want.Core = o.wait().Core // depends on where the kernel puts it
				}
				c.want.DetectedBy = "pidfd"
				if got != c.want {
					if reaped && got == (Death{DetectedBy: "pidfd"}) && !kernelTellsReaped(t) {
						t.Skip("needs Linux 6.15: PIDFD_INFO_EXIT")
					}
					t.Errorf("%+v, want %+v", got, c.want)
				}
			})
		}
	}
}

// kernelTellsReaped says whether a pidfd knows the status of a process that
// its parent has taken note of.
func kernelTellsReaped(t *testing.T) bool {
	t.Helper()
	o := shell(t, "exit 3")
	o.tell()
	o.wait()
	status, ok := 0, false
	o.p.control(func(fd int) { status, ok = infoStatus(fd) })
	return ok && status == 3<<8
}

// A process that lives is not taken for dead: not when it is stopped, nor when
// it runs another program, nor when its first thread ends.
//
// proves S32
func TestTheLivingAreNotDead(t *testing.T) {
	closed := Death{Cause: CauseClosed}
	t.Run("stopped", func(t *testing.T) {
		o := shell(t, "exit 4")
		v, acted, _ := o.vigil(Pidfd{})
		if err := o.cmd.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if got := v.Verdict(); got != closed {
			t.Errorf("stopped: %+v", got)
		}
		if err := o.cmd.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		o.tell()
		soon(t, "its end is noticed", acted)
		if got := v.Verdict(); got.Code != 4 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		o := shell(t, "exec /bin/sh -c 'echo another; read word; exit 5'")
		start := o.p.Start
		v, acted, _ := o.vigil(Pidfd{})
		o.tell()
		if line, err := o.out.ReadString('\n'); line != "another\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if got := v.Verdict(); got != closed || o.p.Dead() {
			t.Errorf("%+v", got)
		}
		if st, err := o.p.stat(); err != nil || st.start != start {
			t.Errorf("it started at %d, before %d, %v", st.start, start, err)
		}
		o.tell()
		soon(t, "its end is noticed", acted)
	})
	t.Run("first thread", func(t *testing.T) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=thread")
		o := begin(t, cmd)
		v, acted, times := o.vigil(Pidfd{})
		if st, err := o.p.stat(); err != nil || !st.exiting() {
			t.Fatalf("its first thread is there: %+v, %v", st, err)
		}
		if got := v.Verdict(); got != closed || o.p.Dead() || times.Load() != 0 {
			t.Errorf("%+v", got)
		}
		if err := o.in.Close(); err != nil {
			t.Fatal(err)
		}
		soon(t, "its end is noticed", acted)
		if got := v.Verdict(); got.Cause != CauseExit || got.Code != 7 {
			t.Errorf("%+v", got)
		}
	})
}

// Who may not know the status of a process does not take it for 0.
//
// proves S33
func TestStatusIsNotGuessed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	told := kernelTellsReaped(t)
	for _, reaped := range []bool{false, true} {
		o := shell(t, "exit 7")
		cmd := exec.Command(os.Args[0], strconv.Itoa(o.cmd.Process.Pid))
		cmd.Env = append(os.Environ(), childEnv+"=stranger")
		stranger := begin(t, cmd)
		o.tell()
		want := Death{DetectedBy: "pidfd"}
		_, acted, _ := o.vigil(Pidfd{})
		soon(t, "it is dead", acted)
		if reaped {
			o.wait()
			if told {
				want.Cause, want.Code = CauseExit, 7
			}
		}
		stranger.tell()
		got, err := stranger.out.ReadString('\n')
		if strings.TrimSpace(got) != fmt.Sprintf("%+v", want) {
			t.Errorf("reaped %v: %q, %v, want %+v", reaped, got, err, want)
		}
	}
}

// second is a source of a test's, which notices when it is told.
type second struct{ died chan func(Death) }

func (s second) Name() string { return "second" }

func (s second) Watch(_ *Process, died func(Death)) (func(), error) {
	s.died <- died
	return func() {}, nil
}

// Of several sources the first acts and the others find it done.
//
// proves S34
func TestFirstSourceActs(t *testing.T) {
	for range 20 {
		o := shell(t, "exit 6")
		s := second{died: make(chan func(Death), 1)}
		v, acted, times := o.vigil(s, Pidfd{})
		died := <-s.died
		o.tell()
		var wg sync.WaitGroup
		wg.Go(func() { died(Death{Cause: CauseExit, Code: 6}) })
		soon(t, "it is noticed", acted)
		wg.Wait()
		got := v.Verdict()
		want := Death{Cause: CauseExit, Code: 6, DetectedBy: "pidfd"}
		if got.DetectedBy == "second" {
			want.DetectedBy = "second"
		}
		if got != want || times.Load() != 1 {
			t.Errorf("%+v, acted %d times", got, times.Load())
		}
	}
}

// What the first source does not know of an end another one tells, and nobody after
// that: it is the first that noticed.
//
// proves S33
// proves S34
func TestAnotherSourceKnows(t *testing.T) {
	o := shell(t, "exit 0") // it lives: the kernel says nothing of its end
	a, b := second{died: make(chan func(Death), 1)}, second{died: make(chan func(Death), 1)}
	v, acted, times := o.vigil(a, b)
	(<-a.died)(Death{}) // returns when the kernel was asked in vain
	soon(t, "it is noticed", acted)
	tell := <-b.died
	want := Death{Cause: CauseSignal, Signal: int(unix.SIGKILL), DetectedBy: "second"}
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := v.Verdict(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	tell(Death{Cause: CauseSignal, Signal: int(unix.SIGKILL)})
	wg.Wait()
	tell(Death{Cause: CauseExit})
	if got := v.Verdict(); got != want || times.Load() != 1 {
		t.Errorf("%+v, acted %d times", got, times.Load())
	}
}

// A vigil that was stopped acts no more.
func TestStopped(t *testing.T) {
	o := shell(t, "exit 0")
	v, _, times := o.vigil(Pidfd{})
	v.Stop()
	o.tell()
	o.wait()
	if !o.p.Dead() || times.Load() != 0 {
		t.Errorf("dead %v, acted %d times", o.p.Dead(), times.Load())
	}
}

// A process's identity is its number and the time of its start.
func TestIdentity(t *testing.T) {
	before := Ticks()
	o := shell(t, "exit 0")
	if o.p.Start < before || o.p.Start > Ticks() {
		t.Errorf("started at %d, not between %d and %d", o.p.Start, before, Ticks())
	}
	o.tell()
	o.wait()
	if _, err := o.p.stat(); err == nil {
		t.Error("something is known of a process that is gone")
	}
	if _, err := Open(o.p.PID); err == nil {
		t.Error("a process that is gone was found")
	}
}

// A process's inode number is its own: the same by every pidfd, another for every
// other process, and none of a Process that is closed.
func TestInode(t *testing.T) {
	o, other := shell(t, "exit 0"), shell(t, "exit 0")
	again, err := Open(o.p.PID)
	if err != nil {
		t.Fatal(err)
	}
	n := o.p.Inode()
	if n == 0 {
		t.Skip("needs Linux 6.9, which numbers pidfds")
	}
	if again.Inode() != n || other.p.Inode() == n || other.p.Inode() == 0 {
		t.Errorf("inode %d, by another pidfd %d, of another process %d", n, again.Inode(), other.p.Inode())
	}
	o.tell()
	o.wait()
	if again.Inode() != n {
		t.Errorf("inode %d, after its end %d", n, again.Inode())
	}
	again.Close()
	if again.Inode() != 0 {
		t.Errorf("inode %d of nothing", again.Inode())
	}
}

// What /proc says of a process is taken apart whatever the process calls itself.
func TestParseStat(t *testing.T) {
	const rest = "S 1 2 3 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 2304\n"
	for _, name := range []string{"sh", "", ") S 1", "a) R (b", "\n) ", "((("} {
		st, err := parseStat([]byte("12 (" + name + ") " + rest))
		if err != nil || st != (procStat{flags: 4194564, start: 777, status: 9 << 8}) || !st.exiting() {
			t.Errorf("%q: %+v, %v", name, st, err)
		}
	}
	for _, b := range []string{"", "12", "12 (x", "12 (x) ", "12 (x) S 1 2 3", "12 (x) " + rest[:60]} {
		if st, err := parseStat([]byte(b)); err == nil {
			t.Errorf("%q: %+v", b, st)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (sh) S 1 2 3 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 2304\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := parseStat(b); err == nil && (st.status < 0 || st.status > 1<<16) {
			t.Errorf("%+v", st)
		}
	})
}
