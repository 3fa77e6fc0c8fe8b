package exitwatch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// onBoth runs a test as on kernels that pass group_dead and as on those that do
// not.
func onBoth(t *testing.T, f func(t *testing.T, s *Source)) {
	t.Helper()
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("group_dead %v", !without), func(t *testing.T) {
			s := open(t, Options{noGroupDead: without})
			if s.Early() == without {
				t.Skipf("the kernel does not pass it")
			}
			f(t, s)
		})
	}
}

// fatal are the signals that end a process which does nothing about them.
func fatal() []int {
	var list []int
	for s := 1; s <= 64; s++ {
		switch unix.Signal(s) { //nolint:exhaustive // the others are fatal
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, // ignored
			unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, // stop
			32, 33: // the C library's
		default:
			list = append(list, s)
		}
	}
	return list
}

// Every way in which a process ends by itself is noticed, and told as waitpid
// tells it.
//
// proves S34
func TestDeathIsNoticed(t *testing.T) {
	ways := [][]string{{"exit", "0"}, {"exit", "7"}, {"exit", "255"}, {"core", "3"}, {"core", "11"}, {"threads", "64"}}
	for _, s := range fatal() {
		ways = append(ways, []string{"signal", strconv.Itoa(s)})
	}
	onBoth(t, func(t *testing.T, s *Source) {
		for _, way := range ways {
			v := start(t, way...)
			n := watchIt(t, s, v.p)
			v.tell()
			got := n.death() // before anybody takes note
			want := v.wait()
			if way[0] == "core" && !want.Core {
				t.Errorf("%v: no core", way)
			}
			if got != want || want.Cause == uhandle.CauseUnknown {
				t.Errorf("%v: noticed as %+v, waitpid says %+v", way, got, want)
			}
			barrier(t, s)
			if c := n.times.Load(); c != 1 {
				t.Errorf("%v: told %d times", way, c)
			}
			n.stop()
		}
	})
}

// The end of the first thread is not the end of the process; that of its last
// thread is, also if that ends alone.
//
// proves S32
func TestFirstThreadIsNotTheProcess(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Source) {
		v := start(t, "first")
		n := watchIt(t, s, v.p)
		v.tell()
		v.expect("alone")
		n.none(s)
		v.tell()
		got := n.death()
		if want := v.wait(); got != want || got.Code != 9 {
			t.Errorf("noticed as %+v, waitpid says %+v", got, want)
		}
	})
}

// A process that executes another program lives on, whichever thread does so,
// and is watched as before.
//
// proves S32
func TestExecIsNoDeath(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Source) {
		for how, code := range map[string]int{"exec": 4, "threadexec": 5} {
			v := start(t, how)
			n := watchIt(t, s, v.p)
			before := v.p.Inode()
			v.tell()
			v.expect("ready") // says the program that it becomes
			n.none(s)
			if got := v.p.Inode(); got != before {
				t.Errorf("%s: its number was %d and is %d", how, before, got)
			}
			v.tell()
			if got := n.death(); got.Cause != uhandle.CauseExit || got.Code != code {
				t.Errorf("%s: %+v", how, got)
			}
		}
	})
}

// A process is not dead because it is stopped, nor because a child is that had
// its memory.
//
// proves S32
func TestTheLivingAreNotDead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Source) {
		v := start(t, "wait")
		n := watchIt(t, s, v.p)
		v.signal(unix.SIGSTOP)
		n.none(s)
		v.signal(unix.SIGKILL)
		if got := n.death(); got.Signal != int(unix.SIGKILL) {
			t.Errorf("stopped, then killed: %+v", got)
		}
		v = start(t, "vfork")
		n = watchIt(t, s, v.p)
		v.tell()
		v.expect("vforked")
		n.none(s)
		v.tell()
		if got := n.death(); got.Cause != uhandle.CauseExit || got.Code != 2 {
			t.Errorf("after its child: %+v", got)
		}
	})
}

// Who shares its memory with a parent dies all the same.
func TestVforked(t *testing.T) {
	s := open(t, Options{})
	v := victimOf(t, "vforked")
	v.start()
	child := v.process(v.number())
	v.expect("ready")
	parent := watchIt(t, s, v.process(v.cmd.Process.Pid))
	n := watchIt(t, s, child)
	if err := unix.Kill(int(child.PID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := n.death(); got.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", got)
	}
	if got := parent.death(); got.Cause != uhandle.CauseExit || got.Code != 0 {
		t.Errorf("its parent: %+v", got)
	}
}

// A process that is traced is dead when it has died, not when its tracer is told
// that it is about to.
func TestTraced(t *testing.T) {
	s := open(t, Options{})
	runtime.LockOSThread() // ptrace is by thread
	defer runtime.UnlockOSThread()
	v := start(t, "exit", "7")
	pid := v.cmd.Process.Pid
	n := watchIt(t, s, v.p)
	if err := unix.PtraceSeize(pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT); err != nil && err != unix.ESRCH {
		t.Fatal(err)
	} else if err == unix.ESRCH { // it must be stopped for that
		if err := unix.PtraceInterrupt(pid); err != nil {
			t.Fatal(err)
		}
		stopped(t, pid)
		if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT); err != nil {
			t.Fatal(err)
		}
		if err := unix.PtraceCont(pid, 0); err != nil {
			t.Fatal(err)
		}
	}
	v.tell()
	if st := stopped(t, pid); st>>8 != syscall.WaitStatus(unix.SIGTRAP|unix.PTRACE_EVENT_EXIT<<8) {
		t.Errorf("stopped with %#x, not at its exit", st)
	}
	n.none(s)
	if err := unix.PtraceCont(pid, 0); err != nil {
		t.Fatal(err)
	}
	if got := n.death(); got.Cause != uhandle.CauseExit || got.Code != 7 {
		t.Errorf("%+v", got)
	}
	// And one that is killed while its tracer has it stopped.
	v = start(t, "wait")
	pid = v.cmd.Process.Pid
	n = watchIt(t, s, v.p)
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	stopped(t, pid)
	n.none(s)
	v.signal(unix.SIGKILL)
	if got := n.death(); got.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", got)
	}
}

func stopped(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	var st syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &st, syscall.WALL, nil); err != nil || !st.Stopped() {
		t.Fatalf("wait: %#x, %v", st, err)
	}
	return st
}

// A process in another pid namespace is watched as any other.
func TestOtherNamespace(t *testing.T) {
	s := open(t, Options{})
	v := victimOf(t, "exit", "7")
	v.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	v.start()
	v.expect("ready")
	n := watchIt(t, s, v.process(v.cmd.Process.Pid))
	v.tell()
	if got := n.death(); got.Cause != uhandle.CauseExit || got.Code != 7 {
		t.Errorf("%+v", got)
	}
}

// A daemon in a pid namespace of its own, where every process has another number
// than outside, watches them as well.
func TestFromOtherNamespace(t *testing.T) {
	open(t, Options{}) // or skip
	path, err := dieProgram()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env = append(os.Environ(), childEnv+"=inside")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("pid 1: %+v\n", uhandle.Death{Cause: uhandle.CauseExit, Code: 7}); err != nil || string(out) != want {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}

// watchInside watches a child in the pid namespace whose first process it is.
func watchInside() {
	s, err := Open(Options{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	cmd := exec.Command(os.Args[1], "exit", "7")
	in, err := cmd.StdinPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	p, err := uhandle.Open(int32(cmd.Process.Pid))
	if err != nil {
		panic(err)
	}
	defer p.Close()
	died := make(chan uhandle.Death, 1)
	stop, err := s.Watch(p, func(d uhandle.Death) { died <- d })
	if err != nil {
		panic(err)
	}
	defer stop()
	if _, err := in.Write([]byte("x")); err != nil {
		panic(err)
	}
	d := <-died
	d.At = 0 // it is another one each time
	fmt.Printf("pid %d: %+v\n", os.Getpid(), d)
	_ = cmd.Wait()
}

// A process that the kernel kills because its cgroup has no memory left is
// noticed.
func TestOutOfMemory(t *testing.T) {
	s := open(t, Options{})
	group, limit := memoryGroup(t)
	if err := os.WriteFile(filepath.Join(group, limit), []byte("16777216"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := start(t, "eat")
	n := watchIt(t, s, v.p)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(v.cmd.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	v.tell()
	got := n.death()
	if want := v.wait(); got != want || got.Signal != int(unix.SIGKILL) {
		t.Errorf("noticed as %+v, waitpid says %+v", got, want)
	}
}

// memoryGroup makes a cgroup that limits memory by the file that it names.
func memoryGroup(t *testing.T) (group, limit string) {
	t.Helper()
	for _, c := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // the first version
		{"/sys/fs/cgroup", "memory.max"},
	} {
		group := filepath.Join(c.root, "exitwatch-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(group); err != nil {
				t.Error(err)
			}
		})
		if _, err := os.Stat(filepath.Join(group, c.limit)); err == nil {
			return group, c.limit
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	t.Fatalf("no cgroup limits memory here: %v\n%s", err, strings.TrimSpace(string(mounts)))
	return "", ""
}
