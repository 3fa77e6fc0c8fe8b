package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScriptsWithDaemon runs the scripts that work with a real mpoold on a
// regular file. Each script has a daemon of its own:
//
//	daemon start   starts mpoold and waits until it answers
//	daemon stop    ends it with SIGTERM; it must exit with 0
//	daemon kill    ends it with SIGKILL
func TestScriptsWithDaemon(t *testing.T) {
	mpoold := filepath.Join(t.TempDir(), "mpoold")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", mpoold, "../mpoold")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building mpoold: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/daemon",
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
		},
	})
}

// realDaemon is an mpoold that belongs to one script.
type realDaemon struct {
	binary, socket, log string
	cmd                 *exec.Cmd
}

// start starts the daemon and waits until it answers.
func (d *realDaemon) start() error {
	log, err := os.OpenFile(d.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.binary, "--socket", d.socket)
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		c, err := dialDaemon(ctx, d.socket)
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
	if !ok || neg || len(args) != 1 {
		ts.Fatalf("usage: daemon start|stop|kill")
	}
	switch args[0] {
	case "start":
		ts.Check(d.start())
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
