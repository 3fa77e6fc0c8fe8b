package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// processes starts mpoolctl as processes, against one daemon with one pool that
// is named data.
type processes struct {
	t   *testing.T
	dir string
	env []string
}

func newProcesses(t *testing.T) *processes {
	t.Helper()
	dir := t.TempDir()
	d := &realDaemon{binary: buildDaemon(t), socket: filepath.Join(dir, "s"), log: filepath.Join(dir, "log")}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.end(syscall.SIGTERM); err != nil {
			t.Errorf("mpoold: %v", err)
		}
	})
	p := &processes{t: t, dir: dir, env: append(os.Environ(), "MPOOL_SOCKET="+d.socket, "GORACE=atexit_sleep_ms=0")}
	drive := filepath.Join(dir, "drive")
	if err := os.WriteFile(drive, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(drive, 64<<20); err != nil {
		t.Fatal(err)
	}
	p.run("pool", "create", "data", drive)
	return p
}

func (p *processes) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), "mpoolctl", args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	return cmd
}

// run runs a command line that must succeed and returns its output.
func (p *processes) run(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).Output()
	if err != nil {
		p.t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// until waits until something is so.
func (p *processes) until(what string, so func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	for !so() {
		if wait(ctx, 5*time.Millisecond) != nil {
			p.t.Fatalf("never %s", what)
		}
	}
}

// space gives the bytes of a pool that are live, uncommitted and draining.
func (p *processes) space() (live, uncommitted, draining int64) {
	v := decode[poolsView](p.t, p.run("--json", "pool", "show", "data"))
	return v[0].LiveBytes, v[0].UncommittedBytes, v[0].DrainingBytes
}

// interrupt interrupts a command and returns what it said. It must exit with
// code 1.
func (p *processes) interrupt(cmd *exec.Cmd, stderr *bytes.Buffer) string {
	p.t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
		p.t.Errorf("%q: %v: %s", cmd.Args, err, stderr)
	}
	if !strings.Contains(stderr.String(), "interrupted (ECANCELED)") {
		p.t.Errorf("%q: %s", cmd.Args, stderr)
	}
	return stderr.String()
}

// start starts a command with a pipe as its input.
func (p *processes) start(args ...string) (cmd *exec.Cmd, stdin io.WriteCloser, stderr *bytes.Buffer) {
	p.t.Helper()
	cmd, stderr = p.command(args...), new(bytes.Buffer)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return cmd, stdin, stderr
}

// An interrupted put leaves no object, no space that is taken, and no file.
func TestInterruptedPutLeavesNothing(t *testing.T) {
	p := newProcesses(t)
	cmd, stdin, stderr := p.start("mblock", "put", "data", "--split", "64KiB", "--manifest", "m")
	if _, err := stdin.Write(make([]byte, 20<<20)); err != nil {
		t.Fatal(err)
	}
	p.until("committed", func() bool { return strings.Count(p.run("-q", "mblock", "list", "data"), "\n") > 10 })
	p.interrupt(cmd, stderr)
	if got := p.run("mblock", "list", "data"); got != "" {
		t.Errorf("left in the pool: %s", got)
	}
	p.until("free again", func() bool {
		live, uncommitted, draining := p.space()
		return live == 0 && uncommitted == 0 && draining == 0
	})
	if left, err := filepath.Glob(filepath.Join(p.dir, "m*")); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// An interrupted append says what is durable; that, and nothing else that is not
// whole, is in the log.
func TestInterruptedAppendKeepsWhatItSays(t *testing.T) {
	p := newProcesses(t)
	id := strings.TrimSpace(p.run("-q", "mlog", "create", "data"))
	cmd, stdin, stderr := p.start("mlog", "append", "data", id, "--lines", "--sync")
	for i := range 1000 {
		fmt.Fprintf(stdin, "line %d\n", i)
	}
	fmt.Fprint(stdin, "half a li")
	p.until("appended", func() bool { return strings.Count(p.run("mlog", "read", "data", id), "\n") == 1000 })
	said := p.interrupt(cmd, stderr)
	if !strings.Contains(said, "1000 records, 7890 bytes, are durable") {
		t.Errorf("%s", said)
	}
	lines := strings.Split(strings.TrimSpace(p.run("mlog", "read", "data", id)), "\n")
	if len(lines) != 1000 || lines[999] != "line 999" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

// An interrupted get leaves no file that is not whole. Whether the interrupt
// comes in time is not certain; a file that is there must be whole then.
func TestInterruptedGetLeavesNoPart(t *testing.T) {
	p := newProcesses(t)
	if err := os.WriteFile(filepath.Join(p.dir, "big"), make([]byte, 50<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(p.run("-q", "mblock", "put", "data", "big"))
	interrupted := 0
	for range 20 {
		cmd, _, stderr := p.start("mblock", "get", "data", id, "-o", "back")
		p.until("begun", func() bool {
			_, err := os.Stat(filepath.Join(p.dir, "back.part"))
			_, err2 := os.Stat(filepath.Join(p.dir, "back"))
			return err == nil || err2 == nil
		})
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		info, statErr := os.Stat(filepath.Join(p.dir, "back"))
		switch {
		case err == nil && (statErr != nil || info.Size() != 50<<20):
			t.Errorf("done, but: %v, %v", info, statErr)
		case err != nil && (statErr == nil || cmd.ProcessState.ExitCode() != exitFailed):
			t.Errorf("interrupted, but the file is there, or: %v: %s", err, stderr)
		case err != nil:
			interrupted++
		default:
			if err := os.Remove(filepath.Join(p.dir, "back")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(filepath.Join(p.dir, "back.part")); err == nil {
			t.Fatal("a part is left")
		}
	}
	if interrupted == 0 {
		t.Error("no get was interrupted in time")
	}
}

// fullPipe makes a pipe that takes nothing more.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Write(fds[1], make([]byte, 4096)); err != nil {
			break // EAGAIN
		}
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
	}
	return os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
}

// An interrupted demonstration deletes what it has made: here at the end of its
// first step, which it cannot print.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	p := newProcesses(t)
	r, w := fullPipe(t)
	cmd := p.command("demo", "data")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p.until("begun", func() bool { return strings.Count(p.run("-q", "mblock", "list", "data"), "\n") == 6 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("%v: %s", err, &stderr)
	}
	if want := "mpoolctl: demo: interrupted (ECANCELED)\n"; stderr.String() != want {
		t.Errorf("%q, want %q", &stderr, want)
	}
	for _, list := range []string{"mblock", "mlog", "root"} {
		if got := p.run("-q", list, "list", "data"); got != "" {
			t.Errorf("left: %s", got)
		}
	}
}

// terminal is a pseudo-terminal.
type terminal struct {
	master, slave *os.File
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return &terminal{master: master, slave: slave}
}

// answer runs a command on the terminal, types an answer when it asks, and
// returns the exit code and everything that was shown.
func (p *processes) answer(answer string, args ...string) (code int, shown string) {
	p.t.Helper()
	tty := openTerminal(p.t)
	cmd := p.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty.slave, tty.slave, tty.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	tty.slave.Close()
	var out bytes.Buffer
	in := bufio.NewReader(tty.master)
	for {
		// The end of a terminal is an error.
		b, err := in.ReadByte()
		if err != nil {
			break
		}
		out.WriteByte(b)
		if strings.HasSuffix(out.String(), "[y/N] ") {
			if _, err := tty.master.WriteString(answer); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	// How it ended is in its exit code.
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

// On a terminal what destroys something asks; only yes is yes. Without one it
// does nothing.
func TestDestructionAsksOnATerminal(t *testing.T) {
	p := newProcesses(t)
	block := strings.TrimSpace(p.run("-q", "mblock", "put", "data", "log"))
	log := strings.TrimSpace(p.run("-q", "mlog", "create", "data", "--capacity", "64KiB"))
	for _, verb := range [][]string{
		{"mblock", "delete", "data", block},
		{"mlog", "erase", "data", log},
		{"mlog", "delete", "data", log},
		{"pool", "destroy", "data"},
	} {
		for _, no := range []string{"\n", "n\n", "yess\n", "\x04", "\x03"} {
			code, shown := p.answer(no, verb...)
			if code == exitDone || !strings.Contains(shown, "? [y/N] ") {
				t.Errorf("%q answered with %q: exit %d: %s", verb, no, code, shown)
			}
		}
		cmd := p.command(verb...)
		cmd.Stdin = strings.NewReader("yes\n")
		if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != exitUsage {
			t.Errorf("%q without a terminal: %v: %s", verb, err, out)
		}
		if code, shown := p.answer("yes\n", verb...); code != exitDone {
			t.Errorf("%q answered with yes: exit %d: %s", verb, code, shown)
		}
	}
	if got := p.run("-q", "pool", "list"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// Bars are drawn on a terminal, and nowhere else.
func TestProgressIsForTerminals(t *testing.T) {
	p := newProcesses(t)
	if err := os.WriteFile(filepath.Join(p.dir, "big"), make([]byte, 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	code, shown := p.answer("", "mblock", "put", "data", "big")
	if code != exitDone || !strings.Contains(shown, "storing") || !strings.Contains(shown, "\r") {
		t.Errorf("on a terminal: exit %d: %q", code, shown)
	}
	if _, shown := p.answer("", "--quiet", "mblock", "put", "data", "log"); strings.Contains(shown, "storing") {
		t.Errorf("quiet on a terminal: %q", shown)
	}
	cmd := p.command("mblock", "put", "data", "log")
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("storing")) || bytes.ContainsAny(out, "\r\x1b") {
		t.Errorf("elsewhere: %v: %q", err, out)
	}
}

// A reader that goes away ends a verb without a word.
func TestReaderGoesAway(t *testing.T) {
	p := newProcesses(t)
	p.run("mblock", "put", "data", "log")
	for _, line := range []string{
		"pool list", "pool show data", "mblock list data", "client list", "handle list", "stat", "stat --interval 10ms",
		"event follow", "man --help", "--json pool list",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd := p.command(strings.Fields(line)...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = w, &stderr
		err = cmd.Run()
		w.Close()
		if code := cmd.ProcessState.ExitCode(); stderr.Len() > 0 || code != exitPipe && code != exitDone {
			t.Errorf("%s: %v: %s", line, err, &stderr)
		}
	}
}
