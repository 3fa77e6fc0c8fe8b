package crowd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

// The roles of children.
const (
	roleMember = "member" // has sessions with handles, and does nothing
	roleChurn  = "churn"  // makes sessions and ends them, again and again
)

// plan is what a child is to do.
type plan struct {
	Socket   string
	Pool     string
	Sessions int
	Mblocks  []layout.ObjectID // each session has a handle on each
}

// join makes a session and the handles that it is to have: one on the pool, one
// for each mblock. What it needs for that is not kept.
func (p *plan) join() (*daemon.Raw, error) {
	w, err := daemon.Greeted(p.Socket)
	if err != nil {
		return nil, err
	}
	pool, err := w.OpenPool(p.Pool)
	if err != nil {
		return nil, err
	}
	for _, id := range p.Mblocks {
		if _, err := w.Open(ioctl.OpMblockFind, &ioctl.Find{Pool: pool, ID: id}); err != nil {
			return nil, err
		}
	}
	return &daemon.Raw{Conn: w.Conn}, nil
}

func planOf() *plan {
	p := &plan{}
	if err := json.Unmarshal([]byte(os.Getenv(envArgs)), p); err != nil {
		panic(err)
	}
	return p
}

// memberMain is the life of a member: it says "ready" and waits for its standard
// input's end.
func memberMain() {
	p := planOf()
	var all []*daemon.Raw
	for i := range p.Sessions {
		w, err := p.join()
		if err != nil {
			fmt.Printf("session %d: %v\n", i, err)
			os.Exit(1)
		}
		all = append(all, w)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, w := range all {
		_ = w.Close()
	}
}

// churnMain makes sessions and ends them until its standard input ends.
func churnMain() {
	p := planOf()
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	fmt.Println("ready")
	for {
		select {
		case <-over:
			return
		default:
		}
		w, err := p.join()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = w.Close()
	}
}

// child is a process of this binary in a role.
type child struct {
	sessions int
	cmd      *exec.Cmd
	stdin    io.Closer
	out      *bufio.Reader
}

func start(t *testing.T, role string, p *plan) *child {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{sessions: p.Sessions, cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), envRole+"="+role, envArgs+"="+string(b), "GORACE=atexit_sleep_ms=0", "GOMAXPROCS=1")
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// ready waits until the child is.
func (c *child) ready(t *testing.T) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		t.Fatalf("a child says %q, %v", line, err)
	}
}

// kill ends the child, if it has not ended.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}
