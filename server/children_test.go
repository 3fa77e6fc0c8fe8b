package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
)

// childEnv names the child that a process of the test's binary is to be, and
// childSocket is the daemon's socket for it.
const (
	childEnv    = "MPOOL_SERVER_TEST_CHILD"
	childSocket = "MPOOL_SERVER_TEST_SOCKET"
)

var children = map[string]func(){
	"holder":     holder,
	"busy":       busy,
	"parent":     parent,
	"grandchild": grandchild,
	"stranger":   unprivileged,
	"leaver":     leaver,
	"goner":      goner,
	"actor":      actor,
	"execer":     execer,
	"executed":   executed,
	"brief":      brief,
}

// offspring is a process of the test's binary.
type offspring struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	in  io.WriteCloser
}

func (r *rig) child(name string) *offspring {
	r.t.Helper()
	c := &offspring{t: r.t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+name, childSocket+"="+r.childSocket())
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.kill)
	return c
}

// childSocket is the rig's socket unless a test has chosen another.
func (r *rig) childSocket() string {
	if s := os.Getenv(childSocket); s != "" {
		return s
	}
	return r.socket
}

// line returns the next line the child writes.
func (c *offspring) line() string {
	c.t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("child: %v", err)
	}
	return strings.TrimSpace(s)
}

func (c *offspring) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("child says %q, want %q", got, want)
	}
}

// kill kills the child, if it is there, and waits for its end.
func (c *offspring) kill() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// What follows runs in the children.

func try[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func childDial() (*client.Conn, api.Pool) {
	ctx := context.Background()
	c := try(client.Dial(ctx, client.Options{Socket: os.Getenv(childSocket)}))
	return c, try(c.OpenPool(ctx, "data"))
}

// forever waits until the parent ends it.
func forever() { _, _ = io.Copy(io.Discard, os.Stdin) }

// holder holds one of everything.
func holder() {
	ctx := context.Background()
	_, p := childDial()
	o := api.AllocOptions{Capacity: 1 << 20}
	b := try(p.AllocMblock(ctx, o))
	try(b.Write(ctx, make([]byte, 100<<10))) // through an arena
	try(b.Get(ctx))
	done := try(p.AllocMblock(ctx, o))
	check(done.Commit(ctx))
	put := try(p.AllocMblock(ctx, o))
	check(put.Put())
	l := try(p.AllocMlog(ctx, o))
	check(l.Commit(ctx))
	app := try(l.OpenAppend(ctx))
	try(app.Append(ctx, []byte("record"), false))
	try(l.OpenRead(ctx))
	m := try(p.OpenMDC(ctx, try(p.CreateMDC(ctx, o))))
	check(m.CompactStart(ctx))
	for _, err := range p.Objects(ctx, api.Filter{}) {
		check(err)
		fmt.Println("ready")
		forever() // in the middle of a list
	}
}

// busy does everything from many goroutines until it is killed.
func busy() {
	ctx := context.Background()
	_, p := childDial()
	fmt.Println("ready")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(g)))
			for {
				life(ctx, rng, p)
			}
		})
	}
	wg.Wait()
}

// life does something with an mblock or a log. What fails does not matter.
func life(ctx context.Context, rng *rand.Rand, p api.Pool) {
	if rng.IntN(2) == 0 {
		b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
		if err != nil {
			return
		}
		_, _ = b.Write(ctx, make([]byte, rng.IntN(200<<10)))
		switch rng.IntN(4) {
		case 0:
			_ = b.Abort(ctx)
		case 1:
			_ = b.Put()
		default:
			_ = b.Commit(ctx)
			if again, err := p.Mblock(ctx, b.ID()); err == nil {
				_, _ = again.ReadAt(make([]byte, 100), 0)
				_ = again.Put()
			}
			_ = b.Delete(ctx)
		}
		return
	}
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		return
	}
	_ = l.Commit(ctx)
	app, err := l.OpenAppend(ctx)
	if err != nil {
		return
	}
	for range rng.IntN(4) {
		_, _ = app.Append(ctx, make([]byte, rng.IntN(5000)), rng.IntN(2) == 0)
	}
	if r, err := l.OpenRead(ctx); err == nil {
		_, _ = r.Next(ctx, make([]byte, 8192))
		_ = r.Close()
	}
	_ = app.Close(ctx)
	_ = l.Delete(ctx)
}

// parent connects, and lets a child of its own inherit the socket.
func parent() {
	conn := try(net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: os.Getenv(childSocket), Net: "unixpacket"}))
	plainAsk(conn, ioctl.OpHello, 1, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	if _, code := plainAsk(conn, ioctl.OpVersion, 2, &ioctl.Empty{}); code != 0 {
		panic(code)
	}
	plainAsk(conn, ioctl.OpPoolOpen, 3, &ioctl.PoolName{Name: "data"})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=grandchild")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Stdin = os.Stdin
	cmd.ExtraFiles = []*os.File{try(conn.File())}
	check(cmd.Start())
	_ = cmd.Wait() // it ends with the test's pipe
}

// grandchild has its parent's socket, and no right to it.
func grandchild() {
	conn := try(net.FileConn(os.NewFile(3, "socket"))).(*net.UnixConn)
	_, code := plainAsk(conn, ioctl.OpVersion, 10, &ioctl.Empty{})
	fmt.Println("stranger got", code)
	fmt.Println("pid", os.Getpid())
	forever()
}

// plainAsk makes a request without the client library.
func plainAsk(conn *net.UnixConn, op ioctl.Op, tag uint64, m ioctl.Message) ([]byte, api.Code) {
	try(conn.Write(try(ioctl.Append(nil, ioctl.Header{Op: op, Tag: tag}, m))))
	buf := make([]byte, ioctl.MaxMessage)
	n := try(conn.Read(buf))
	h := try(ioctl.ParseHeader(buf[:n]))
	if h.Flags&ioctl.FlagError != 0 {
		var e ioctl.Error
		check(ioctl.Decode(&e, buf[ioctl.HeaderSize:n]))
		return nil, e.Code
	}
	return buf[ioctl.HeaderSize:n], 0
}

// unprivileged is a user without rights, in one group of its own, who says what
// the daemon lets it do.
func unprivileged() {
	check(syscall.Setgroups([]int{4242}))
	check(syscall.Setgid(65534))
	check(syscall.Setuid(65534))
	ctx := context.Background()
	c := try(client.Dial(ctx, client.Options{Socket: os.Getenv(childSocket)}))
	say := func(what string, err error) {
		code := "ok"
		if err != nil {
			code = api.CodeOf(err).Error()
			var e *api.Error
			if errors.As(err, &e) && len(e.Holders) > 0 {
				for _, h := range e.Holders {
					code += fmt.Sprintf(" %v:%d", h.PID == int32(os.Getpid()), h.References)
				}
			}
		}
		fmt.Println(what, code)
	}
	for _, name := range []string{"closed", "mine", "group", "readable", "data"} {
		p, err := c.OpenPool(ctx, name)
		say("open "+name, err)
		if err != nil {
			_, err = c.Stat(ctx, name)
			say("stat "+name, err)
			continue
		}
		b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1})
		say("alloc "+name, err)
		if err == nil {
			check(b.Abort(ctx))
		}
		_, err = p.ReallocMblock(ctx, mblockID(7777), api.AllocOptions{Capacity: 1})
		say("realloc "+name, err)
		_, err = p.AllocMblock(ctx, api.AllocOptions{Capacity: 1, UseSpare: true})
		say("spare "+name, err)
		say("roots "+name, p.SetRoots(ctx, []api.Root{{Name: "r"}}))
		if found, err := p.Mblock(ctx, mblockID(1)); err == nil {
			say("delete "+name, found.Delete(ctx))
		}
	}
	var names []string
	for _, i := range try(c.Pools(ctx)) {
		names = append(names, i.Name)
	}
	fmt.Println("pools", names)
	_, err := c.CreatePool(ctx, "x", []string{"/dev/x"}, api.CreateOptions{})
	say("create", err)
	_, err = c.ActivatePool(ctx, "x", nil, api.ActivateOptions{})
	say("activate", err)
	say("deactivate", c.DeactivatePool(ctx, "mine"))
	say("destroy", c.DestroyPool(ctx, "mine"))
	say("rename", c.RenamePool(ctx, "mine", "yours"))
	say("set", c.SetPool(ctx, "mine", api.PoolSettings{Mode: new(uint32(0o777))}))
	check(c.Close())
}
