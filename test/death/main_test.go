package death

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

var (
	kills = flag.Int("death.kills", 100, "how many clients are made to die")
	seed  = flag.Uint64("death.seed", 0, "seed of what clients do and when they die; 0: from the clock")
	race  = flag.Bool("death.race", raceDetector, "build the daemon with the race detector")
	heaps = flag.String("death.heaps", "", "a folder for heap profiles of the daemon, to see what grows")
	most  = flag.Int("death.clients", 100, "how many clients live at one time at most; up to 1000")
)

// The environment of a child, which is another process of this binary.
const (
	envRole   = "MPOOL_DEATH_ROLE"
	envSocket = "MPOOL_DEATH_SOCKET"
	envArgs   = "MPOOL_DEATH_ARGS"
)

// roles are what a child may be.
var roles = map[string]func(){
	"victim": victimMain, "init": initMain, "again": againMain, "parent": parentMain, "heir": heirMain, "exec": execMain, "execed": execedMain,
	"library": libraryMain, "threads": threadsMain, "early": earlyMain,
	"overwrite": overwriteMain, "silent": silentMain, "namespaced": namespacedMain,
}

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		roles[role]() // a role that is not there panics
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, *race, &mpoold))
}

// child is a process of this binary. It ends when its standard input does,
// which is the test's end at the latest.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// spawn starts a child in a role.
func spawn(t *testing.T, socket, role, args string, change ...func(*exec.Cmd)) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), envRole+"="+role, envSocket+"="+socket, envArgs+"="+args)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if f, ok := out.(*os.File); !ok || f.SetReadDeadline(time.Now().Add(daemon.Patience)) != nil {
		t.Fatal("a child whose silence would not be noticed")
	}
	for _, f := range change {
		f(c.cmd)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

func (c *child) pid() int32 { return int32(c.cmd.Process.Pid) }

// line returns the next line that the child writes.
func (c *child) line() string {
	c.t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("child: %v", err)
	}
	return strings.TrimSpace(s)
}

func (c *child) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("child says %q, want %q", got, want)
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// kill kills the child, if it is there, and waits for its end.
func (c *child) kill() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.cmd.Process.Kill() // it may be dead
	_ = c.in.Close()         // it may be closed
	_ = c.cmd.Wait()         // "signal: killed" is what is wanted
}

// What follows is for children.

func try[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// say writes a line for the test.
func say(a ...any) { try(fmt.Println(a...)) }

// forever waits until the test ends the child.
func forever() {
	_, _ = io.Copy(io.Discard, os.Stdin) // it ends all the same
	os.Exit(0)
}
