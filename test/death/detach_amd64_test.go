package death

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/daemon"
)

// complaint is what the daemon says once when deaths are not told any more.
const complaint = "the exit tracepoint misses clients' deaths"

// proves S33 S34: when the daemon's program is taken from the tracepoint while it
// runs, no death is missed, and the daemon says once that it is.
func TestBPFDetached(t *testing.T) {
	needRoot(t)
	k := newKill(t, "require")
	k.batch(8, 8, true)
	was := k.watch.events.by["bpf"]
	k.detach()
	k.before = func() { time.Sleep(time.Second) } // a younger watch may have come too late: it is no reason to complain
	for range 2 {
		k.batch(12, 12, true)
		k.living.idle(func() { k.watch.compare(12) })
	}
	if n := k.watch.events.by["bpf"]; n != was {
		t.Errorf("noticed by %v, by bpf %d before: the program is attached", k.watch.events.by, was)
	}
	if n := strings.Count(k.d.Log(), complaint); n != 1 {
		t.Errorf("said %d times: %s\n%s", n, complaint, k.d.Log())
	}
	k.living.finish(t)
	t.Logf("noticed by %v", k.watch.events.by)
}

// detach takes the daemon's program from the tracepoint. Where the kernel does not
// let an administrator do that by the link's number, which of tracepoints it does
// not, the daemon's own descriptor of the link is taken from it.
func (k *kill) detach() {
	k.t.Helper()
	fd, id := bpfLink(k.t, k.d)
	l, err := link.NewFromID(id)
	if err != nil {
		k.t.Fatal(err)
	}
	err = l.Detach()
	if cerr := l.Close(); cerr != nil {
		k.t.Fatal(cerr)
	}
	if err == nil {
		return
	}
	if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EOPNOTSUPP) {
		k.t.Fatal(err)
	}
	k.living.idle(func() {
		c := spawn(k.t, k.d.Socket, "overwrite", fmt.Sprint(k.d.PID, fd))
		c.expect(fmt.Sprint("dup3 returned ", fd))
		daemon.Eventually(k.t, "the kernel has no such link any more", func() bool {
			l, err := link.NewFromID(id)
			if err == nil {
				_ = l.Close() // it has nothing to lose
			}
			return errors.Is(err, os.ErrNotExist)
		})
		k.watch.idle.usage = k.d.Usage()
	})
}

// bpfLink returns the daemon's descriptor of its link, and the link's number.
func bpfLink(t *testing.T, d *daemon.Daemon) (fd int, id link.ID) {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", d.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it is closed
		}
		for line := range strings.Lines(string(b)) {
			n, ok := strings.CutPrefix(line, "link_id:")
			if !ok {
				continue
			}
			if _, err := fmt.Sscan(n, &id); err != nil {
				t.Fatal(err)
			}
			if fd, err = strconv.Atoi(filepath.Base(path)); err != nil {
				t.Fatal(err)
			}
			return fd, id
		}
	}
	t.Fatal("the daemon has no link")
	return 0, 0
}

// overwriteMain makes a descriptor of another process one of what its descriptor 0
// is of, by a system call that its first thread is made to do. It is no child of
// this one, whose stops somebody else would be told of.
func overwriteMain() {
	// Of one thread alone may the other be asked what.
	runtime.LockOSThread()
	var pid, fd int
	try(fmt.Sscan(os.Getenv(envArgs), &pid, &fd))
	check(unix.PtraceSeize(pid))
	check(unix.PtraceInterrupt(pid))
	stopped := func() unix.Signal {
		var ws unix.WaitStatus
		try(unix.Wait4(pid, &ws, unix.WALL, nil))
		return ws.StopSignal()
	}
	stopped()
	check(unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD))
	var before, regs unix.PtraceRegs
	check(unix.PtraceGetRegs(pid, &before))
	if int64(before.Orig_rax) < 0 {
		panic("the first thread is not in a system call")
	}
	regs = before
	regs.Rip -= 2              // at the instruction that made the call,
	regs.Orig_rax = ^uint64(0) // which is not to be made again now
	regs.Rax, regs.Rdi = unix.SYS_DUP3, 0
	regs.Rsi, regs.Rdx = uint64(fd), unix.O_CLOEXEC
	check(unix.PtraceSetRegs(pid, &regs))
	const ofCall = unix.SIGTRAP | 0x80
	for calls := 0; calls < 2; { // at its begin and at its end
		check(unix.PtraceSyscall(pid, 0))
		if stopped() == ofCall {
			calls++
		}
	}
	check(unix.PtraceGetRegs(pid, &regs))
	check(unix.PtraceSetRegs(pid, &before)) // and the call begins again
	check(unix.PtraceDetach(pid))
	say("dup3 returned", int64(regs.Rax))
}
