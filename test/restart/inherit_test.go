package restart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
)

// A stranger has a connection's socket as its descriptor 3. It sends requests
// that are not its own to send, says what it was answered, and keeps the socket
// until its standard input ends.
func stranger() {
	const socket, tag = 3, 1 << 60
	b, err := ioctl.Append(nil, ioctl.Header{Op: ioctl.OpVersion, Tag: tag}, &ioctl.Empty{})
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // now
	buf := make([]byte, ioctl.MaxMessage)
	// The process whose socket it is may be the one that hears the answer.
	for range 1000 {
		if err := unix.Send(socket, b, unix.MSG_NOSIGNAL); err != nil {
			fmt.Println("cannot send:", err)
			return
		}
		n := answer(socket, buf)
		if n <= 0 {
			continue
		}
		h, err := ioctl.ParseHeader(buf[:n])
		if err == nil && h.Op == ioctl.OpRing {
			continue // the parent's, which asks for one in the background and does without
		}
		if err != nil || h.Tag != tag {
			fmt.Println("another's answer:", h, err)
			return
		}
		var e ioctl.Error
		if err := ioctl.Decode(&e, buf[ioctl.HeaderSize:n]); err != nil {
			panic(err)
		}
		fmt.Println(e.Code)
		break
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// answer waits a moment for a message.
func answer(fd int, buf []byte) int {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 20); err != nil || n == 0 {
		return 0
	}
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return 0
	}
	return n
}

// connections returns the descriptors of this process's connections.
func connections(t *testing.T) (found []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_SEQPACKET {
			found = append(found, fd)
		}
	}
	return found
}

// dialed makes a connection and returns it with a copy of its descriptor.
func dialed(t *testing.T, d *served) (*client.Conn, *os.File) {
	t.Helper()
	before := connections(t)
	c, err := client.Dial(t.Context(), client.Options{Socket: d.socket})
	if err != nil {
		t.Fatal(err)
	}
	after := slices.DeleteFunc(connections(t), func(fd int) bool { return slices.Contains(before, fd) })
	if len(after) != 1 {
		t.Fatalf("%d connections were made", len(after))
	}
	fd, err := unix.FcntlInt(uintptr(after[0]), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		t.Fatal(err)
	}
	return c, os.NewFile(uintptr(fd), "connection")
}

// proves S32: a child that has its parent's socket is answered EPERM, its
// parent is not harmed, and when the parent closes the connection the session
// ends although the child still has the socket.
func TestInheritedSocket(t *testing.T) {
	d := newServed(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, socket := dialed(t, d)
	defer c.Close()
	p := d.open(c)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+`={"Stranger":true}`)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	socket.Close()
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := out.Read(line)
	if got := strings.TrimSpace(string(line[:n])); got != "EPERM" {
		t.Errorf("the child was answered %q: %v", got, err)
	}
	// The parent goes on where it was, with what was its own.
	if _, err := b.Write(ctx, make([]byte, 100_000)); err != nil {
		t.Errorf("the parent's write: %v", err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Errorf("the parent's commit: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	look := d.dial()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) { // polls; nothing depends on its length
		list, err := look.Clients(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the session has not ended: %+v", list)
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A process that uses what was another's connection gets an error before
// anything is sent: see the tests of package client. Here: what a program that
// was started anew by exec has of its predecessor's connections is nothing.
//
// proves S32
func TestExecEndsIt(t *testing.T) {
	d := newServed(t)
	c := d.dial()
	d.open(c)
	out, err := exec.Command("/bin/sh", "-c", "ls -l /proc/self/fd | grep -c socket").Output()
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) || strings.TrimSpace(string(out)) != "0" {
		t.Errorf("a program has %s sockets of its parent's: %v", out, err)
	}
}
