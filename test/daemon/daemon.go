// Package daemon runs the real mpoold for tests and looks at it from outside:
// what it logs, what it holds of memory, descriptors, threads and processor
// time, and, when it is made to die for it, which goroutines it has.
package daemon

import (
	"cmp"
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

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/loopdev"
)

// Patience bounds every wait for the daemon. It decides only how long a test
// that fails takes.
const Patience = 3 * time.Minute

// builtVariable names a folder in the environment with the commands as this
// tree builds them: mpoold, mpoold.race and mpoolctl. Who runs many packages
// builds them once. What is not there is built.
const builtVariable = "MPOOL_TEST_BUILT"

// Build builds mpoold into dir, with the race detector or without, and returns
// its path, which lies elsewhere if the environment names a folder where it is
// built already. The caller's working directory must lie within the module.
func Build(dir string, race bool) (string, error) { return build(dir, "mpoold", race) }

// BuildCtl is Build for mpoolctl, without the race detector.
func BuildCtl(dir string) (string, error) { return build(dir, "mpoolctl", false) }

func build(dir, command string, race bool) (string, error) {
	built := filepath.Join(os.Getenv(builtVariable), command)
	if race {
		built += ".race"
	}
	if _, err := os.Stat(built); err == nil && filepath.IsAbs(built) {
		return built, nil
	}
	bin := filepath.Join(dir, command)
	args := []string{"build", "-o", bin}
	if race {
		args = append(args, "-race")
	}
	args = append(args, "github.com/mpool-go/mpool/cmd/"+command)
	if msg, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", command, err, msg)
	}
	return bin, nil
}

// Options are how a daemon is run. The zero value is an unconfigured one.
type Options struct {
	Config string // text of a configuration file
	Args   []string
	Attr   *syscall.SysProcAttr
	// Profiles makes it serve profiles; see Profile.
	Profiles bool
	Socket   string // a path, for one daemon after the other; "": its own
}

// Daemon is a running mpoold.
type Daemon struct {
	Socket string
	PID    int

	tb      testing.TB
	metrics string // socket of the profiles
	cmd     *exec.Cmd
	log     Buffer
	ended   chan struct{} // closed when the process was waited for
	err     error         // of Wait; valid when ended is closed
}

// Start runs bin and waits until it accepts. It is killed when its test ends,
// if it still runs then; a daemon that has died, or has seen a data race, fails
// the test.
func Start(tb testing.TB, bin string, o Options) *Daemon {
	tb.Helper()
	d := Launch(tb, bin, o)
	for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) { // polls; nothing depends on its length
		c, err := client.Dial(context.Background(), client.Options{Socket: d.Socket, Hello: Patience})
		if err == nil {
			if err := c.Close(); err != nil {
				tb.Fatal(err)
			}
			return d
		}
		select {
		case <-d.ended:
			tb.Fatalf("mpoold has ended: %v\n%s", d.err, d.Log())
		default:
		}
		if time.Now().After(end) {
			tb.Fatalf("mpoold does not become ready: %v\n%s", err, d.Log())
		}
	}
}

// Launch is Start without waiting.
func Launch(tb testing.TB, bin string, o Options) *Daemon {
	tb.Helper()
	dir := tb.TempDir()
	d := &Daemon{tb: tb, Socket: cmp.Or(o.Socket, filepath.Join(dir, "s")), ended: make(chan struct{})}
	args := append([]string{"--socket", d.Socket}, o.Args...)
	if o.Profiles {
		d.metrics = filepath.Join(dir, "m")
		args = append(args, "--metrics", d.metrics, "--pprof")
	}
	if o.Config != "" {
		file := filepath.Join(dir, "config")
		if err := os.WriteFile(file, []byte(o.Config), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	d.cmd = exec.Command(bin, args...)
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = o.Attr
	// A data race ends it.
	d.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1")
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	d.PID = d.cmd.Process.Pid
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	tb.Cleanup(d.end)
	return d
}

// end is the test's end.
func (d *Daemon) end() {
	if d.Running() {
		d.Stop()
	}
	if out := d.Log(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "\npanic:") ||
		strings.Contains(out, "\nfatal error:") {
		d.tb.Errorf("the daemon says:\n%s", out)
	}
}

// Log returns what the daemon has written to stderr so far.
func (d *Daemon) Log() string { return d.log.String() }

// Ended is closed when the process has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Running says whether the process is there.
func (d *Daemon) Running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(s syscall.Signal) {
	d.tb.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.tb.Errorf("send %v to mpoold: %v\n%s", s, err, d.Log())
	}
}

// wait waits for the process's end and returns its error.
func (d *Daemon) wait() error {
	d.tb.Helper()
	select {
	case <-d.ended:
		return d.err
	case <-time.After(Patience):
		d.tb.Errorf("mpoold does not end:\n%s", d.Log())
		_ = d.cmd.Process.Kill() //nolint:errcheck // it may end just now
		<-d.ended
		return d.err
	}
}

// Stop ends the daemon with SIGTERM; anything but a clean exit fails the test.
func (d *Daemon) Stop() {
	d.tb.Helper()
	d.Signal(syscall.SIGTERM)
	if err := d.wait(); err != nil {
		d.tb.Errorf("mpoold: %v\n%s", err, d.Log())
	}
}

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill() {
	d.tb.Helper()
	d.Signal(syscall.SIGKILL)
	_ = d.wait() //nolint:errcheck // "signal: killed" is what is wanted
}

// Dial connects to the daemon for the life of the test.
func (d *Daemon) Dial() *client.Conn {
	d.tb.Helper()
	c, err := client.Dial(context.Background(), client.Options{Socket: d.Socket, Hello: Patience})
	if err != nil {
		d.tb.Fatalf("%v\n%s", err, d.Log())
	}
	d.tb.Cleanup(func() { _ = c.Close() }) // its daemon may be gone
	return c
}

// Pool makes a pool on a drive and opens it, through a connection of its own.
func (d *Daemon) Pool(name, drive string, o api.CreateOptions) (*client.Conn, api.Pool) {
	d.tb.Helper()
	ctx := context.Background()
	c := d.Dial()
	if _, err := c.CreatePool(ctx, name, []string{drive}, o); err != nil {
		d.tb.Fatal(err)
	}
	p, err := c.OpenPool(ctx, name)
	if err != nil {
		d.tb.Fatal(err)
	}
	return c, p
}

// Drive makes a blank drive for the life of the test: a loop device as root,
// else a file. It is made before the daemon is started that is
// to have it, so that it goes after it.
func Drive(tb testing.TB, size int64) string {
	tb.Helper()
	if os.Geteuid() == 0 {
		return loopdev.New(tb, size, loopdev.Options{SectorSize: 4096}).Path
	}
	dir := tb.TempDir()
	path, err := driveFile(dir, size)
	if errors.Is(err, syscall.EINVAL) { // temporary files have no direct I/O there
		if dir, err = os.MkdirTemp(".", "drive"); err == nil {
			tb.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					tb.Error(err)
				}
			})
			path, err = driveFile(dir, size)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// driveFile makes a file in a folder that can be opened for direct I/O.
func driveFile(dir string, size int64) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "drive"))
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, 0o600)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Truncate(size), f.Close())
}

// Eventually waits until ok says true, and fails the test if it does not.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(2 * time.Millisecond) { // polls; nothing depends on its length
		if time.Now().After(end) {
			tb.Fatalf("in vain: %s", what)
		}
	}
}
