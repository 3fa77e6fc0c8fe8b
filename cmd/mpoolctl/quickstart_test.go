package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quickstartPhases are the headings of scripts/quickstart.sh. By default it is
// interrupted in the first that has a device and a daemon; in all of them when
// MPOOL_QUICKSTART is all, which takes minutes.
var quickstartPhases = []string{
	"Building", "The input", "A drive, a daemon", "Storing the tree", "Reading it back", "Appending a real log",
	"Killing the daemon", "Restarting it", "Deleting what", "Checking the drive",
}

// An interrupt, in whatever phase, leaves no process, no loop device and no file.
func TestInterruptedQuickstartLeavesNothing(t *testing.T) {
	phases := quickstartPhases[2:3]
	if os.Getenv("MPOOL_QUICKSTART") == "all" {
		phases = quickstartPhases
	}
	for _, phase := range phases {
		for _, delay := range []time.Duration{0, 50 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(phase+" "+delay.String(), func(t *testing.T) { interruptQuickstart(t, phase, delay) })
		}
	}
}

func interruptQuickstart(t *testing.T, phase string, delay time.Duration) {
	tmp, err := os.MkdirTemp("", "quick") // t.TempDir has names that are too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	// Where interrupts are ignored, as in the background of a script, the script
	// would inherit that. It does not inherit a handler.
	interrupts := make(chan os.Signal, 1)
	if signal.Ignored(os.Interrupt) {
		signal.Notify(interrupts, os.Interrupt)
		defer signal.Stop(interrupts)
	}
	cmd := exec.CommandContext(t.Context(), "../../scripts/quickstart.sh")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := -cmd.Process.Pid
	// If the script hangs, or fails to clean up, nothing goes on for ever.
	defer syscall.Kill(group, syscall.SIGKILL)
	lines, found := bufio.NewScanner(out), false
	for lines.Scan() {
		if !found && strings.HasPrefix(lines.Text(), "-- "+phase) {
			found = true
			if err := wait(t.Context(), delay); err != nil {
				t.Fatal(err)
			}
			// As a terminal does: to everybody.
			if err := syscall.Kill(group, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); !found || code != 130 && code != 1 {
		t.Errorf("phase found: %v; ended with %v", found, err)
	}
	if err := syscall.Kill(group, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("processes are left: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range backing {
		// One that is being detached by somebody else has no file any more.
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), tmp) {
			t.Errorf("a loop device is left: %s", f)
		}
	}
}
