package death

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves S32: a session ends with the process that connected although a child
// of it has the socket; the child cannot speak in its name, and when it tries
// that harms nobody.
func TestForkedChildKeepsSocket(t *testing.T) {
	s := newScene(t, "")
	c := spawn(t, s.d.Socket, "parent", "")
	c.expect("heir: EPERM")
	heir, err := strconv.Atoi(strings.TrimPrefix(c.line(), "heir is "))
	if err != nil {
		t.Fatal(err)
	}
	c.expect("parent: ok")
	s.lives(c.pid(), 1)
	c.signal(syscall.SIGKILL)
	s.ended(c.pid(), ioctl.CauseSignal)
	if err := unix.Kill(heir, 0); err != nil {
		t.Fatalf("the child is gone as well: %v", err)
	}
	c.expect("heir: ended")
}

// raw makes a connection that has a pool and an uncommitted mblock.
func raw() (*daemon.Raw, ioctl.Handle) {
	w := try(daemon.Greeted(os.Getenv(envSocket)))
	check(w.Conn.SetDeadline(time.Time{}))
	b := try(w.Alloc(ioctl.OpMblockAlloc, try(w.OpenPool(poolName)), 1<<20))
	return w, b
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return api.CodeOf(err).Error()
}

func parentMain() {
	w, b := raw()
	file := try(w.Conn.File())
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envRole+"=heir")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Stdin = os.Stdin
	said, told := try2(os.Pipe())
	cmd.ExtraFiles = append(cmd.ExtraFiles, told)
	check(cmd.Start())
	check(told.Close())
	// The child asks first: its answer must not be taken by the parent.
	try(said.Read(make([]byte, 1)))
	_, err := w.Ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: b})
	say("parent:", outcome(err))
	_ = cmd.Wait() // it ends with the test's pipe
}

func try2[A, B any](a A, b B, err error) (A, B) {
	check(err)
	return a, b
}

// heirMain is a child that has its parent's socket, and no right to it.
func heirMain() {
	conn, ok := try(net.FileConn(os.NewFile(3, "socket"))).(*net.UnixConn)
	if !ok {
		panic("no Unix socket")
	}
	w := daemon.NewRaw(conn)
	_, err := w.Ask(ioctl.OpVersion, &ioctl.Empty{})
	say("heir:", outcome(err))
	say("heir is", os.Getpid())
	asked := os.NewFile(4, "asked")
	try(asked.Write([]byte("x")))
	check(asked.Close())
	hungUp(conn)
	say("heir: ended")
	forever()
}

// hungUp waits until the other end of a socket is closed, without taking from it
// what is another's.
func hungUp(conn *net.UnixConn) {
	check(try(conn.SyscallConn()).Control(func(fd uintptr) {
		for {
			fds := []unix.PollFd{{Fd: int32(fd)}} // an end is told unasked
			n, err := unix.Poll(fds, -1)
			if err == nil && n == 1 {
				return
			}
		}
	}))
}

// proves S32: exec ends the library's session at once, although the process
// lives on under another program.
func TestExec(t *testing.T) {
	s := newScene(t, "")
	c := spawn(t, s.d.Socket, "library", "")
	c.expect("ready")
	s.lives(c.pid(), 1)
	c.order("exec")
	s.ended(c.pid(), ioctl.CauseClosed, ioctl.SourceSocket)
	if err := unix.Kill(int(c.pid()), 0); err != nil {
		t.Errorf("the process did not live on: %v", err)
	}
}

// libraryMain holds a pool and an uncommitted mblock through the library, with
// memory that it shares with the daemon.
func libraryMain() {
	l := newHolder()
	say("ready")
	if order() == "exec" {
		check(unix.Exec("/bin/sleep", []string{"sleep", "600"}, nil))
	}
	l.use()
	say("used")
	forever()
}

// proves S32: a socket made by hand without CLOEXEC goes through exec. The
// process is the same, and so is its session: it serves the new program as it
// would have the old one, and ends with the process.
func TestExecWithoutCloexec(t *testing.T) {
	s := newScene(t, "")
	c := spawn(t, s.d.Socket, "exec", "")
	c.expect("execed: ok")
	s.lives(c.pid(), 1)
	c.signal(syscall.SIGKILL)
	s.ended(c.pid(), ioctl.CauseSignal)
}

func execMain() {
	w, _ := raw()
	file := try(w.Conn.File())
	fd := try(unix.Dup(int(file.Fd()))) // without CLOEXEC
	check(os.Setenv(envRole, "execed"))
	check(os.Setenv(envArgs, strconv.Itoa(fd)))
	check(unix.Exec("/proc/self/exe", os.Args[:1], os.Environ()))
}

func execedMain() {
	fd := try(strconv.Atoi(os.Getenv(envArgs)))
	conn, ok := try(net.FileConn(os.NewFile(uintptr(fd), "socket"))).(*net.UnixConn)
	if !ok {
		panic("no Unix socket")
	}
	_, err := daemon.NewRaw(conn).Ask(ioctl.OpVersion, &ioctl.Empty{})
	say("execed:", outcome(err))
	forever()
}

// proves S32: a session is the process's, not the thread's: neither the end of
// the thread that connected nor that of the first thread ends it.
func TestThreadExit(t *testing.T) {
	s := newScene(t, "")
	var c *child
	for said := "not the first thread"; said != "the thread that connected is gone"; {
		if said != "not the first thread" {
			t.Fatalf("child says %q", said)
		}
		c = spawn(t, s.d.Socket, "threads", "")
		said = c.line()
	}
	s.lives(c.pid(), 1)
	c.expect("the first thread is gone")
	daemon.Eventually(t, "the first thread is a zombie", func() bool { return procState(t, c.pid()) == 'Z' })
	time.Sleep(300 * time.Millisecond) // for an end that must not come
	s.lives(c.pid(), 1)
	c.order("use")
	c.expect("used")
	s.lives(c.pid(), 1)
	c.signal(syscall.SIGKILL)
	s.ended(c.pid(), ioctl.CauseSignal)
}

// procState is the letter that /proc has for a process.
func procState(t *testing.T, pid int32) byte {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if rest == "" {
		t.Fatalf("/proc/%d/stat: %q", pid, b)
	}
	return rest[0]
}
