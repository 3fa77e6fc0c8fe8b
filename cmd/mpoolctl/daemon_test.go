package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mpool-go/mpool/client"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

// TestScriptsWithDaemon runs the scripts that work with a real mpoold on
// regular files. Each script has a daemon of its own:
//
//	daemon start [ARG...]   starts mpoold and waits until it answers
//	daemon stop    ends it with SIGTERM; it must exit with 0
//	daemon kill    ends it with SIGKILL
//	nobody CODE REGEXP ARG...
//	               runs mpoolctl as another user, as usage does; skips the rest
//	               of the script where this process cannot
func TestScriptsWithDaemon(t *testing.T) {
	mpoold := buildDaemon(t)
	nobodys := copyForAnybody(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/daemon",
		WorkdirRoot:         openDir(t),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			d := &realDaemon{binary: mpoold, socket: filepath.Join(env.WorkDir, "s"), log: filepath.Join(env.WorkDir, "log")}
			env.Values[realDaemon{}] = d
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("MPOOL_SOCKET", d.socket)
			env.Defer(func() {
				if err := d.end(syscall.SIGKILL); err != nil && !errors.As(err, new(*exec.ExitError)) {
					t.Errorf("killing mpoold: %v", err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"usage":  scriptUsage,
			"daemon": scriptDaemon,
			"nobody": func(ts *testscript.TestScript, _ bool, args []string) { scriptNobody(ts, nobodys, args) },
		},
	})
}

// built is where mpoold is, and the directory that it was built into, if it was.
type built struct{ path, dir string }

// builtDaemon builds mpoold, once, into a directory that TestMain removes.
var builtDaemon = sync.OnceValues(func() (built, error) {
	dir, err := os.MkdirTemp("", "mpoolctl-test")
	if err != nil {
		return built{}, err
	}
	path, err := testdaemon.Build(dir, false)
	return built{path, dir}, err
})

// buildDaemon returns the path of mpoold.
func buildDaemon(t *testing.T) string {
	t.Helper()
	daemonWasBuilt.Store(true)
	b, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	return b.path
}

// daemonWasBuilt says that there is something to remove.
var daemonWasBuilt atomic.Bool

// removeDaemon removes what buildDaemon has made.
func removeDaemon() error {
	if !daemonWasBuilt.Load() {
		return nil
	}
	b, err := builtDaemon()
	return errors.Join(err, os.RemoveAll(b.dir))
}

// openDir makes a directory that other users can reach.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// copyForAnybody copies this program, as mpoolctl, to where other users can run
// it.
func copyForAnybody(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(openDir(t), "mpoolctl")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// nobody is the user that the scripts run mpoolctl as when they want another.
const nobody = 65534

// scriptNobody is the command nobody of the scripts.
func scriptNobody(ts *testscript.TestScript, mpoolctl string, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: nobody CODE REGEXP ARG...")
	}
	if os.Geteuid() != 0 {
		ts.Logf("skipped: running as another user takes root")
		return
	}
	cmd := exec.Command(mpoolctl, args[2:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"MPOOL_SOCKET=" + ts.Getenv("MPOOL_SOCKET"), "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		ts.Fatalf("%v", err)
	}
	if code := strconv.Itoa(cmd.ProcessState.ExitCode()); code != args[0] || !regexp.MustCompile(args[1]).Match(out) {
		ts.Fatalf("exit %s, want %s; output does not match %q: %s", code, args[0], args[1], out)
	}
}

// realDaemon is an mpoold that belongs to one script.
type realDaemon struct {
	binary, socket, log string
	cmd                 *exec.Cmd
}

// start starts the daemon and waits until it answers.
func (d *realDaemon) start(args ...string) error {
	log, err := os.OpenFile(d.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.binary, append([]string{"--socket", d.socket}, args...)...)
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for {
		c, err := dialDaemon(ctx, client.Options{Socket: d.socket})
		if err == nil {
			return c.Close()
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// end ends the daemon and returns how it exited; nil if there is none.
func (d *realDaemon) end(sig syscall.Signal) error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	return errors.Join(cmd.Process.Signal(sig), cmd.Wait())
}

// scriptDaemon is the command daemon of the scripts.
func scriptDaemon(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := ts.Value(realDaemon{}).(*realDaemon)
	if !ok || neg || len(args) == 0 || len(args) > 1 && args[0] != "start" {
		ts.Fatalf("usage: daemon start [ARG...]|stop|kill")
	}
	switch args[0] {
	case "start":
		ts.Check(d.start(args[1:]...))
	case "stop":
		ts.Check(d.end(syscall.SIGTERM))
	case "kill":
		if err := d.end(syscall.SIGKILL); !errors.As(err, new(*exec.ExitError)) {
			ts.Fatalf("killed daemon: %v", err)
		}
	default:
		ts.Fatalf("usage: daemon start|stop|kill")
	}
}
