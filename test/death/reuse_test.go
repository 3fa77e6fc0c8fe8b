package death

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/ioctl"
)

// proves S32 S33: a process that gets the number of a client that is dead, and of
// whose death the daemon has not heard, is another: the dead one's session ends
// and the living one's does not, each once.
func TestNumberGivenAgain(t *testing.T) {
	needRoot(t)
	for _, ebpf := range []string{"auto", "off"} {
		t.Run("ebpf "+ebpf, func(t *testing.T) {
			for range 10 {
				if numberGivenAgain(t, ebpf) {
					return
				}
			}
			t.Error("others were always quicker to get the number")
		})
	}
}

// numberGivenAgain returns false if somebody else got the number.
func numberGivenAgain(t *testing.T, ebpf string) bool {
	t.Helper()
	s := newScene(t, "[deaths]\nebpf = '"+ebpf+"'\n")
	old := spawn(t, s.d.Socket, "library", "")
	old.expect("ready")
	s.lives(old.pid(), 1)

	s.d.Signal(syscall.SIGSTOP) // it hears of nothing
	old.signal(syscall.SIGKILL)
	_ = old.cmd.Wait() // "signal: killed" is what is wanted
	again := spawn(t, s.d.Socket, "again", strconv.Itoa(int(old.pid())))
	if said := again.line(); said != "made" {
		s.d.Signal(syscall.SIGCONT)
		return false
	}
	s.d.Signal(syscall.SIGCONT)
	again.expect("ready")
	e := s.ofSession(old.pid(), 1)
	if e[0].Cause != ioctl.CauseSignal || e[0].Signal != int32(unix.SIGKILL) || e[0].Aborted != 1 {
		t.Errorf("the end of the first: %+v", e[0])
	}
	s.lives(old.pid(), 1)
	again.order("use")
	again.expect("used")
	if err := unix.Kill(int(old.pid()), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	e = s.ofSession(old.pid(), 2)
	if e[1].Cause != ioctl.CauseSignal || e[1].Signal != int32(unix.SIGTERM) || e[1].Aborted != 1 || e[1].Session == e[0].Session {
		t.Errorf("the end of the second: %+v", e[1])
	}
	s.compare(2)
	return true
}

// againMain makes a process of a given number, which is a client through the
// library.
func againMain() {
	pid := int32(try(strconv.Atoi(os.Getenv(envArgs))))
	path := try(unix.BytePtrFromString("/proc/self/exe"))
	argv := try(syscall.SlicePtrFromStrings(os.Args[:1]))
	check(os.Setenv(envRole, "library"))
	env := try(syscall.SlicePtrFromStrings(os.Environ()))
	child, errno := cloneAs(&pid, path, &argv[0], &env[0])
	if errors.Is(errno, unix.EEXIST) {
		say("taken")
		return
	}
	if errno != 0 {
		panic(errno)
	}
	say("made")
	var st unix.WaitStatus
	for {
		if _, err := unix.Wait4(child, &st, 0, nil); !errors.Is(err, unix.EINTR) {
			check(err)
			return
		}
	}
}

// cloneArgs are clone3's.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize uint64
}

// cloneAs makes a child of a number that executes a program.
//
//go:norace
func cloneAs(pid *int32, path *byte, argv, env **byte) (int, syscall.Errno) {
	args := cloneArgs{exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(pid))), setTIDSize: 1}
	child, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 || child != 0 {
		return int(child), errno
	}
	_, _, _ = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(env)))
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}
