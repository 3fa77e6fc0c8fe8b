package uhandle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv says what a process of the test's binary is to be.
const childEnv = "MPOOL_UHANDLE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "thread":
		loseFirstThread()
		return
	case "stranger":
		watchAsStranger()
		return
	}
	goleak.VerifyTestMain(m)
}

// loseFirstThread ends the process's first thread and goes on without it.
func loseFirstThread() {
	lost := make(chan struct{})
	for range 100 {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				close(lost)
				_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {} // keeps its thread, so that another gets the first
		}()
		runtime.Gosched()
	}
	go func() { // the main goroutine may be on the first thread itself
		<-lost
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(7)
	}()
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		close(lost)
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	}
	select {}
}

// watchAsStranger watches a process that its user may not look into, and says
// how it ended.
func watchAsStranger() {
	pid, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
	}
	if err != nil {
		panic(err)
	}
	p, err := Open(int32(pid))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		panic(err)
	}
	v, err := Watch(p, []Source{Pidfd{}}, func(string) {})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%+v\n", v.Verdict())
}

// offspring is a process that says when it is there and ends when it is told.
type offspring struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	p   *Process
}

// shell starts a shell that runs the script once it is told to.
func shell(t *testing.T, script string) *offspring {
	t.Helper()
	return begin(t, exec.Command("/bin/sh", "-c", "echo ready; read word; "+script))
}

func begin(t *testing.T, cmd *exec.Cmd) *offspring {
	t.Helper()
	o := &offspring{t: t, cmd: cmd}
	cmd.Dir, cmd.Stderr = t.TempDir(), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if o.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = o.in.Close()
		_ = cmd.Wait()
	})
	o.out = bufio.NewReader(out)
	if line, err := o.out.ReadString('\n'); strings.TrimSpace(line) != "ready" {
		t.Fatalf("child says %q, %v", line, err)
	}
	if o.p, err = Open(int32(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.p.Close)
	return o
}

// tell lets it end.
func (o *offspring) tell() {
	o.t.Helper()
	if _, err := io.WriteString(o.in, "go\n"); err != nil {
		o.t.Fatal(err)
	}
}

// wait takes note of its end and returns what waitpid says.
func (o *offspring) wait() Death {
	o.t.Helper()
	_ = o.cmd.Wait() // says no more than the status
	status, ok := o.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		o.t.Fatal("no wait status")
	}
	return FromStatus(int(status))
}
