package exitwatch

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// deaths says how many the storms and the latencies are measured with: a few
// thousand take seconds, a hundred thousand some minutes.
var deaths = flag.Int("exitwatch.deaths", 3000, "deaths in storms")

// childEnv says what a process of the test's binary is to be.
const childEnv = "MPOOL_EXITWATCH_TEST_CHILD"

// scratch is a folder that is gone after the tests, where anybody may read.
var scratch string

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "inside":
		watchInside()
		return
	case "nobody":
		openAsNobody()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	flag.Parse()
	var err error
	if scratch, err = os.MkdirTemp("", "exitwatch"); err == nil {
		err = os.Chmod(scratch, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for _, d := range bpfDescriptors() {
		fmt.Fprintln(os.Stderr, "left open:", d)
		code = 1
	}
	return code
}

// bpfDescriptors returns what the process has open of the kind that a Source
// and a Process are made of.
func bpfDescriptors() []string {
	var list []string
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range dir {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.Contains(to, "bpf") || strings.Contains(to, "pidfd")) {
			list = append(list, to)
		}
	}
	return list
}

// dieProgram is testdata/die.c, compiled.
var dieProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "die")
	out, err := exec.Command("cc", "-O1", "-Wall", "-Werror", "-pthread", "-o", path, "testdata/die.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cc: %w\n%s", err, out)
	}
	return path, nil
})

// kernelTypes are read once: it takes long in a test binary.
var kernelTypes = sync.OnceValues(btf.LoadKernelSpec)

// open opens a Source, which must be empty when the test ends.
func open(t *testing.T, o Options) *Source {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load programs into the kernel")
	}
	types, err := kernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	o.types = types
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := entries(t, s); n != 0 || s.Stats().Processes != 0 {
			t.Errorf("%d processes are left in the kernel's map, %d in the source's", n, s.Stats().Processes)
		}
		s.Close()
		if s.Stats().Up {
			t.Error("a closed source is up")
		}
	})
	return s
}

// entries counts what is in the kernel's map.
func entries(t *testing.T, s *Source) int {
	t.Helper()
	n := 0
	var process uint64
	var nothing uint8
	it := s.maps.watched.Iterate()
	for it.Next(&process, &nothing) {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// victim is a process that says when it is there and ends as it is told.
type victim struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	p   *uhandle.Process
}

// victimOf makes one of a way to end; see testdata/die.c.
func victimOf(t *testing.T, how ...string) *victim {
	t.Helper()
	path, err := dieProgram()
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, cmd: exec.Command(path, how...)}
	v.cmd.SysProcAttr = &syscall.SysProcAttr{}
	return v
}

// start starts one and waits until it is ready.
func start(t *testing.T, how ...string) *victim {
	t.Helper()
	v := victimOf(t, how...)
	v.start()
	v.expect("ready")
	v.p = v.process(v.cmd.Process.Pid)
	return v
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd.Dir, v.cmd.Stderr = v.t.TempDir(), os.Stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		_ = v.cmd.Process.Kill()
		_ = v.in.Close()
		_ = v.cmd.Wait()
	})
	v.out = bufio.NewReader(out)
}

// process opens a process.
func (v *victim) process(pid int) *uhandle.Process {
	v.t.Helper()
	p, err := uhandle.Open(int32(pid))
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(p.Close)
	return p
}

func (v *victim) line() string {
	v.t.Helper()
	line, err := v.out.ReadString('\n')
	if err != nil {
		v.t.Fatalf("it says %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

func (v *victim) expect(want string) {
	v.t.Helper()
	if got := v.line(); got != want {
		v.t.Fatalf("it says %q, not %q", got, want)
	}
}

func (v *victim) number() int {
	v.t.Helper()
	n, err := strconv.Atoi(v.line())
	if err != nil {
		v.t.Fatal(err)
	}
	return n
}

func (v *victim) tell() {
	v.t.Helper()
	if _, err := io.WriteString(v.in, "x"); err != nil {
		v.t.Fatal(err)
	}
}

func (v *victim) signal(s syscall.Signal) {
	v.t.Helper()
	if err := unix.Kill(v.cmd.Process.Pid, s); err != nil {
		v.t.Fatal(err)
	}
}

// wait takes note of its end and returns what waitpid says.
func (v *victim) wait() uhandle.Death {
	v.t.Helper()
	var e *exec.ExitError
	if err := v.cmd.Wait(); err != nil && !errors.As(err, &e) {
		v.t.Fatal(err)
	}
	status, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		v.t.Fatal("no wait status")
	}
	return uhandle.FromStatus(int(status))
}

// news is what a watch has told.
type news struct {
	t     *testing.T
	first chan uhandle.Death
	times atomic.Int32
	stop  func()
	from  int64 // when the watch began
}

// watch watches a process until the test ends.
func watchIt(t *testing.T, s *Source, p *uhandle.Process) *news {
	t.Helper()
	n := &news{t: t, first: make(chan uhandle.Death, 1), from: uhandle.Monotonic()}
	stop, err := s.Watch(p, func(d uhandle.Death) {
		if n.times.Add(1) == 1 {
			n.first <- d
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n.stop = stop
	t.Cleanup(stop)
	return n
}

// death waits for it. When it was must be between the watch's beginning and now.
func (n *news) death() uhandle.Death {
	n.t.Helper()
	d := soon(n.t, "the death is noticed", n.first)
	if now := uhandle.Monotonic(); d.At < n.from || d.At > now {
		n.t.Errorf("it was at %d; watched from %d to %d", d.At, n.from, now)
	}
	d.At = 0 // waitpid does not tell it
	return d
}

// none fails the test if the process was taken for dead, by anything that
// happened up to now: what happens later has been told.
func (n *news) none(s *Source) {
	n.t.Helper()
	barrier(n.t, s)
	if c := n.times.Load(); c != 0 {
		n.t.Errorf("the living was told dead %d times: %+v", c, <-n.first)
	}
}

// barrier returns when all records up to now have been read: a death of its own
// is.
func barrier(t *testing.T, s *Source) {
	t.Helper()
	v := start(t, "exit", "0")
	n := watchIt(t, s, v.p)
	v.tell()
	n.death()
	n.stop()
}

func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(3 * time.Minute):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}
