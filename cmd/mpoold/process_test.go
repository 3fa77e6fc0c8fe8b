package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/client"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

// roleVariable says what a process of the test binary plays.
const roleVariable = "MPOOLD_TEST_ROLE"

// The roles.
const (
	roleDaemon  = "daemon"  // mpoold with its arguments
	roleUser    = "user"    // a client that goes through a pool's life
	roleWriters = "writers" // clients that write until their daemon is gone
	roleTenant  = "tenant"  // a client that looks around in a pool
	roleHolder  = "holder"  // a client that waits
)

func play(role string) {
	switch role {
	case roleDaemon:
		main()
	case roleUser:
		os.Exit(playUser(os.Args[1], os.Args[2]))
	case roleWriters:
		os.Exit(playWriters(os.Args[1]))
	case roleTenant:
		os.Exit(playTenant(os.Args[1]))
	case roleHolder:
		os.Exit(playHolder(os.Args[1]))
	default:
		fmt.Fprintln(os.Stderr, "no such role:", role)
		os.Exit(99)
	}
}

// process is a process of the test binary in a role. It has ended when its test
// has.
type process struct {
	cmd    *exec.Cmd
	stderr testdaemon.Buffer
	stdout testdaemon.Buffer
	ended  chan struct{} // closed when it has ended, whatever holds its output
	state  *os.ProcessState
}

// selfPath is the test binary, as any user may run it.
func selfPath(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shortDir(t), "mpoold")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// command makes a process of the test binary, which the caller starts.
func command(role string, args ...string) *process {
	p := &process{cmd: exec.Command("/proc/self/exe", args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role, "MPOOL_SOCKET=", "NOTIFY_SOCKET=", "WATCHDOG_USEC=",
		"GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// What it leaves behind must not hold the test up.
	p.cmd.WaitDelay = stopTime
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

func (p *process) start(t *testing.T) *process {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		p.state = p.cmd.ProcessState
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// spawn starts the daemon as a process.
func spawn(t *testing.T, socket string, args ...string) *process {
	t.Helper()
	return command(roleDaemon, append([]string{"--socket", socket}, args...)...).start(t)
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait waits for the process's end and its exit code.
func (p *process) wait(t *testing.T, within time.Duration, want int) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		t.Fatalf("pid %d does not end within %v:\n%s", p.cmd.Process.Pid, within, p.stderr.String())
	}
	if code := p.state.ExitCode(); code != want {
		t.Errorf("exit code %d (%v), want %d:\n%s", code, p.state, want, p.stderr.String())
	}
}

// says waits until the process has said something.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	p.saysAfter(t, 0, text)
}

// saysAfter waits until the process has said something behind the first n bytes.
func (p *process) saysAfter(t *testing.T, n int, text string) {
	t.Helper()
	for end := time.Now().Add(stopTime); !strings.Contains(p.stderr.String()[n:], text); {
		if time.Now().After(end) {
			t.Fatalf("does not say %q:\n%s", text, p.stderr.String())
		}
		select {
		case <-p.ended:
			if !strings.Contains(p.stderr.String()[n:], text) {
				t.Fatalf("ended with %v and did not say %q:\n%s", p.state, text, p.stderr.String())
			}
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// dial connects to a daemon, as soon as there is one.
func dial(t *testing.T, socket string) *client.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	for {
		c, err := client.Dial(ctx, client.Options{Socket: socket, Hello: stopTime, Reconnect: -1})
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		if !errors.Is(err, client.ErrNoDaemon) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// shortDir returns a folder whose name leaves room for a socket's, and that
// everybody may look into.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // others may have something in it
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// pattern returns n bytes.
func pattern(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }
