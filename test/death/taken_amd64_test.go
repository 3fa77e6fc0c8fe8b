package death

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/daemon"
)

// proves S33 S34: when the daemon's program is taken from the tracepoint while it
// runs, no death is missed.
func TestBPFDetached(t *testing.T) {
	needRoot(t)
	k := newKill(t, "require")
	k.batch(20, 20, true)
	was := k.watch.events.by["bpf"]
	link := descriptor(t, k.d, "bpf_link")
	if err := onThread(func() error { return overwrite(k.d.PID, link) }); err != nil {
		t.Fatal(err)
	}
	k.living.idle(func() { k.watch = k.watch.again() }) // with one descriptor another
	for range 2 {
		k.batch(40, 40, true)
		k.living.idle(func() { k.watch.compare(40) })
	}
	k.living.finish(t)
	by := k.watch.events.by
	t.Logf("%d were noticed by bpf; then: %v", was, by)
	if by["bpf"] != 0 {
		t.Errorf("noticed by %v: the program was not taken away", by)
	}
}

// descriptor returns the daemon's descriptor whose link names something.
func descriptor(t *testing.T, d *daemon.Daemon, of string) (fd int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", d.PID)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		to, err := os.Readlink(dir + "/" + e.Name())
		if err != nil || !strings.Contains(to, of) {
			continue
		}
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	t.Fatalf("the daemon has no %s", of)
	return 0
}

// overwrite has a process replace one of its descriptors by its standard input,
// with the process none the wiser: as its tracer, in the middle of a system call
// that its first thread waits in.
func overwrite(pid, fd int) error {
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	for end := time.Now().Add(daemon.Patience); time.Now().Before(end); {
		if err := interrupted(pid); err != nil {
			return err
		}
		done, err := overwriteStopped(pid, fd)
		if err != nil || done {
			return errors.Join(err, unix.PtraceDetach(pid))
		}
		if err := unix.PtraceCont(pid, 0); err != nil {
			return err
		}
		time.Sleep(time.Millisecond) // until it waits in a system call
	}
	return errors.New("the first thread never waits in a system call")
}

// interrupted stops a thread.
func interrupted(pid int) error {
	if err := unix.PtraceInterrupt(pid); err != nil {
		return err
	}
	for {
		st, err := stopSeen(pid)
		if err != nil || st>>16 == unix.PTRACE_EVENT_STOP {
			return err
		}
		if err := unix.PtraceCont(pid, int(st.StopSignal())); err != nil { // it is about to get a signal
			return err
		}
	}
}

// stopSeen waits until a thread stops.
func stopSeen(pid int) (st unix.WaitStatus, err error) {
	_, err = unix.Wait4(pid, &st, unix.WALL, nil)
	if err == nil && !st.Stopped() {
		err = fmt.Errorf("the daemon has ended: %#x", int(st))
	}
	return st, err
}

// overwriteStopped makes the system call in a stopped thread, if the one that it
// is in shows where such calls are made.
func overwriteStopped(pid, fd int) (done bool, err error) {
	const size = 2 // of the instruction, syscall
	var saved unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &saved); err != nil {
		return false, err
	}
	var code [size]byte
	if _, err := unix.PtracePeekText(pid, uintptr(saved.Rip-size), code[:]); err != nil {
		return false, err
	}
	if code != [size]byte{0x0f, 0x05} {
		return false, nil
	}
	call := saved
	call.Rip -= size
	call.Rax, call.Orig_rax = unix.SYS_DUP3, ^uint64(0)
	call.Rdi, call.Rsi, call.Rdx = 0, uint64(fd), unix.O_CLOEXEC
	if err := unix.PtraceSetRegs(pid, &call); err != nil {
		return false, err
	}
	for st := unix.WaitStatus(0); st.StopSignal() != unix.SIGTRAP; { // Go does without the signals that it sends itself
		if err := unix.PtraceSingleStep(pid); err != nil {
			return false, err
		}
		if st, err = stopSeen(pid); err != nil {
			return false, err
		}
	}
	if err := unix.PtraceGetRegs(pid, &call); err != nil {
		return false, err
	}
	if int(call.Rax) != fd {
		err = fmt.Errorf("dup3 in the daemon: %d", int64(call.Rax))
	}
	return true, errors.Join(err, unix.PtraceSetRegs(pid, &saved))
}
