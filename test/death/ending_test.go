package death

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows is for victims: how they end.

// afterlife is how long a client lives on without its connections.
const afterlife = 30 * time.Millisecond

// coreBytes is how much of a core is written: the kernel says that there is one
// all the same.
const coreBytes = 64 << 10

// threadCode is what each thread exits with.
const threadCode = 43

// threadSignal ends the thread that it is sent to.
const threadSignal = unix.SIGUSR1

// prepare makes the process mortal in its way.
func (v *victim) prepare(a *victimArgs) {
	limit := uint64(0)
	if a.way == byCore {
		limit = coreBytes
	}
	check(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: limit, Max: limit}))
	if a.way == lastThread {
		handle(int(threadSignal), exitThread())
	}
	if s := unix.Signal(a.number); a.way.signals() && s != unix.SIGKILL {
		handle(int(s), 0) // what it does to other programs
	}
}

// handle has a signal handled by machine code behind the runtime's back; 0: as
// the kernel does.
func handle(signal int, code uintptr) {
	const onStack, restorer = 0x08000000, 0x04000000
	action := [4]uint64{uint64(code)} // handler, flags, restorer, mask
	if code != 0 {
		action[1] = onStack
		if runtime.GOARCH == "amd64" {
			action[1] |= restorer // which is never returned to
		}
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
		panic(errno)
	}
}

// exitThread makes machine code that ends the thread, not the process, with
// threadCode.
func exitThread() uintptr {
	code := map[string][]byte{
		// mov $43, %edi; mov $60, %eax; syscall
		"amd64": {0xbf, threadCode, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05},
		// mov x0, #43; mov x8, #93; svc #0
		"arm64": {0x60, 0x05, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4},
	}[runtime.GOARCH]
	if code == nil {
		panic("no machine code for " + runtime.GOARCH)
	}
	page := try(unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
	copy(page, code)
	check(unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC))
	return uintptr(unsafe.Pointer(&page[0]))
}

// await ends the process when the test says so, or when the test ends.
func (v *victim) await(a *victimArgs) {
	var b [1]byte
	if n, _ := os.Stdin.Read(b[:]); n == 0 {
		os.Exit(0)
	}
	v.end(a)
}

// end ends the process, or its connections.
func (v *victim) end(a *victimArgs) {
	switch a.way {
	case byExit:
		os.Exit(a.number)
	case byOwnSignal, byCore:
		check(unix.Kill(os.Getpid(), unix.Signal(a.number)))
		select {}
	case heir:
		v.tell("h %d", leaveChild())
		check(unix.Kill(os.Getpid(), unix.SIGKILL))
	case starved:
		eat()
	case firstThread:
		close(v.mayGo)
		for !strings.Contains(string(try(os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getpid())))), ") Z ") {
			runtime.Gosched()
		}
		v.stillServed()
		return
	case released, resumed: // it is let go, and not dead
		v.stillServed()
		return
	case byExec:
		check(unix.Exec("/bin/sleep", []string{"sleep", fmt.Sprint(afterlife.Seconds())}, nil))
	case closeAll:
		sockets(unix.Close)
	case shutWrite:
		sockets(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
	case shutRead:
		sockets(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
	case bySignal, stopped, traced, lastThread, innerInit, ownInit, inUserNS, numWays:
		panic("no way for a client to take")
	}
	time.Sleep(afterlife)
	os.Exit(0)
}

// stillServed uses all that the victim holds, and says so.
func (v *victim) stillServed() {
	_, err := v.p.Info(context.Background())
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, use := range v.uses {
		err = errors.Join(err, use())
	}
	if v.blame("use what it holds", err) {
		v.tell("l")
	}
}

// sockets does something to all the process's sockets, behind the library's
// back.
func sockets(do func(fd int) error) {
	for _, e := range try(os.ReadDir("/proc/self/fd")) {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		var fd int
		try(fmt.Sscan(e.Name(), &fd))
		_ = do(fd) // the library may have closed it
	}
}

// eat takes memory until there is none.
func eat() {
	const step = 64 << 20
	for {
		b := try(unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
}

// leaveChild forks a child, as one does who knows nothing of the library: it has
// the sockets, and the memory that is shared with the daemon although the
// library has asked for the opposite. It lives until its standard input ends.
func leaveChild() int {
	for line := range strings.Lines(string(try(os.ReadFile("/proc/self/maps")))) {
		var from, to uintptr
		if !strings.Contains(line, "/memfd:") {
			continue
		}
		try(fmt.Sscanf(line, "%x-%x", &from, &to))
		// The library may have unmapped it just now.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DOFORK)
	}
	return fork()
}

// fork is the system call: in the child nothing of Go's works but more of them.
//
//go:norace
func fork() int {
	var b [1]byte
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	if pid != 0 {
		return int(pid)
	}
	for fd := uintptr(1); fd <= reportFD; fd++ { // whose ends the test waits for
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, 0, uintptr(unsafe.Pointer(&b)), 1)
		if errno == 0 && n == 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
