package death

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// order tells the child what to do.
func (c *child) order(s string) {
	c.t.Helper()
	if _, err := c.in.Write([]byte(s + "\n")); err != nil {
		c.t.Fatal(err)
	}
}

// proves S33 S34: a process whose parent does not take note of its death is
// dead all the same.
func TestZombie(t *testing.T) {
	s := newScene(t, "")
	c := spawn(t, s.d.Socket, "library", "")
	c.expect("ready")
	s.lives(c.pid(), 1)
	began := time.Now()
	c.signal(syscall.SIGKILL)
	s.ended(c.pid(), ioctl.CauseSignal)
	t.Logf("looked at %v after the kill", time.Since(began))
	if st := procState(t, c.pid()); st != 'Z' {
		t.Errorf("its state is %c: nothing is proven", st)
	}
}

// proves S32: clients that were dead before they were accepted, whatever they
// had sent by then, are reaped at once.
func TestDeadBeforeAccept(t *testing.T) {
	s := newScene(t, "")
	s.d.Signal(syscall.SIGSTOP)
	const each = 10
	var children []*child
	for _, sends := range []string{"nothing", "hello", "all"} {
		for range each {
			children = append(children, spawn(t, s.d.Socket, "early", sends))
		}
	}
	for _, c := range children {
		c.expect("sent")
		c.signal(syscall.SIGKILL)
		_ = c.cmd.Wait() // "signal: killed" is what is wanted
	}
	s.d.Signal(syscall.SIGCONT)
	daemon.Eventually(t, "all were accepted and are gone", func() bool {
		stat, err := s.c.Stat(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		return stat.Reaped >= s.mine+uint64(len(children))-1 && stat.Sessions == 1
	})
	s.compare(len(children))
}

// earlyMain sends what it can to a daemon that does not accept.
func earlyMain() {
	w := try(daemon.DialRaw(os.Getenv(envSocket)))
	what := os.Getenv(envArgs)
	if what != "nothing" {
		check(w.Send(ioctl.Header{Op: ioctl.OpHello, Tag: 1}, daemon.Hello()))
	}
	if what == "all" {
		check(w.Send(ioctl.Header{Op: ioctl.OpPoolOpen, Tag: 2}, &ioctl.PoolName{Name: poolName}))
		check(w.Send(ioctl.Header{Op: ioctl.OpArena, Tag: 3}, &ioctl.ArenaAsk{}))
	}
	say("sent")
	forever()
}

// proves S43: a client that never says hello has no session for long.
func TestNeverSaysHello(t *testing.T) {
	s := newScene(t, "[limits]\nhello_timeout = '2s'\n")
	var silent []*child
	for range 5 {
		c := spawn(t, s.d.Socket, "silent", "")
		c.expect("connected")
		silent = append(silent, c)
	}
	for _, c := range silent {
		c.expect("ended")
	}
	s.compare(len(silent))
}

func silentMain() {
	w := try(daemon.DialRaw(os.Getenv(envSocket)))
	say("connected")
	for {
		if _, _, err := w.Receive(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				panic(err)
			}
			break // it may be told why before
		}
	}
	say("ended")
	forever()
}

// proves S32: a client in a pid namespace below the daemon's is served and
// known by its number in the daemon's.
func TestNamespaceBelow(t *testing.T) {
	needRoot(t)
	s := newScene(t, "")
	c := spawn(t, s.d.Socket, "namespaced", "", func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	})
	c.expect("process 1")
	s.lives(c.pid(), 1)
	c.signal(syscall.SIGKILL)
	s.ended(c.pid(), ioctl.CauseSignal)
}

func namespacedMain() {
	h := newHolder()
	h.use()
	say("process", os.Getpid())
	forever()
}

// proves S32: a client that the daemon cannot see, because its pid namespace is
// not below the daemon's, has no session and is told why.
func TestNamespaceAbove(t *testing.T) {
	needRoot(t)
	d := daemon.Launch(t, mpoold, daemon.Options{Attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}})
	var err error
	daemon.Eventually(t, "the daemon answers", func() bool {
		var c *client.Conn
		c, err = client.Dial(context.Background(), client.Options{Socket: d.Socket})
		if err == nil {
			t.Fatal(errors.Join(errors.New("it is served"), c.Close()))
		}
		return !errors.Is(err, client.ErrNoDaemon)
	})
	if !errors.Is(err, api.EPERM) || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("it is told %v", err)
	}
	daemon.Eventually(t, "the log tells, too", func() bool { return strings.Contains(d.Log(), "namespace") })
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a pid namespace")
	}
}
