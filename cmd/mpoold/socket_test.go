package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/client"
)

// Of daemons that start at one time on one socket one serves, whoever was killed
// on it before, and the others say so and end.
func TestRaceForSocket(t *testing.T) {
	const daemons, rounds = 6, 4
	socket := filepath.Join(shortDir(t), "s")
	for round := range rounds {
		var list []*process
		for range daemons {
			list = append(list, spawn(t, socket))
		}
		_ = dial(t, socket).Close()
		winner := lastOf(t, list)
		_ = dial(t, socket).Close()
		if round%2 == 0 {
			winner.signal(t, syscall.SIGKILL) // the next ones find a stale socket
			<-winner.ended
			continue
		}
		winner.signal(t, syscall.SIGTERM)
		winner.wait(t, stopTime, exitClean)
		for _, path := range []string{socket, socket + ".lock", socket + ".new"} {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s was left behind: %v", path, err)
			}
		}
	}
}

// lastOf returns the one of many daemons that stays. The others must have failed
// for its sake.
func lastOf(t *testing.T, list []*process) *process {
	t.Helper()
	running := make(map[*process]bool)
	for _, p := range list {
		running[p] = true
	}
	for end := time.Now().Add(stopTime); len(running) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d daemons run", len(running))
		}
		for p := range running {
			select {
			case <-p.ended:
				delete(running, p)
				p.wait(t, stopTime, exitFail)
				p.says(t, "listening on the socket already")
			default:
			}
		}
	}
	for p := range running {
		return p
	}
	t.Fatal("no daemon runs")
	return nil
}

// What keeps a daemon from its socket is told with the path and what to do.
func TestSocketErrors(t *testing.T) {
	dir := shortDir(t)
	file := writeFile(t, filepath.Join(dir, "file"), "precious")
	long := filepath.Join(dir, strings.Repeat("x", 100))
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := os.Symlink(file, filepath.Join(dir, "linked.lock")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, socket string
		want         []string
	}{
		{"file", file, []string{file, "no socket"}},
		{"below a file", filepath.Join(file, "s"), []string{file, "is no directory"}},
		{"in no directory", filepath.Join(dir, "no", "such", "s"), []string{filepath.Join(dir, "no", "such") + " is not there"}},
		{"too long", long, []string{long, "at most 103 fit"}},
		{"abstract", "@mpool", []string{"abstract"}},
		{"another's", stream.Addr().String(), []string{"another kind"}},
		{"a link for a lock", filepath.Join(dir, "linked"), []string{"take its lock"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.socket)
			r.wait(t, exitFail)
			for _, want := range c.want {
				if !strings.Contains(r.stderr.String(), want) {
					t.Errorf("does not say %q:\n%s", want, r.stderr.String())
				}
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that was not there is there: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// seqpacket makes a listening socket as systemd does.
func seqpacket(t *testing.T, path string, kind int, pass bool) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if pass {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			t.Fatal(err)
		}
	}
	if kind != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, 64); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// activateProcess starts the daemon as systemd does, with descriptors from 3 on.
func activateProcess(t *testing.T, fds []*os.File, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := command(roleDaemon)
	// LISTEN_PID names the process that it is for, which only that one knows.
	p.cmd.Path = "/bin/sh"
	p.cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, self}, args...)
	p.cmd.Env = append(p.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(fds)), "LISTEN_FDNAMES=mpoold", "XDG_RUNTIME_DIR=")
	p.cmd.ExtraFiles = fds
	return p.start(t)
}

// A socket that the daemon was started with is served, stays when the daemon
// stops, and keeps who comes meanwhile until the next one serves.
func TestSocketActivation(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	f := seqpacket(t, path, unix.SOCK_SEQPACKET, true)
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	// This one comes before there is a daemon at all, as the first that makes
	// systemd start one.
	early := make(chan error, 1)
	connect := func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		c, err := client.Dial(ctx, client.Options{Socket: path, Hello: stopTime, Reconnect: -1})
		if err == nil {
			_, err = c.Version(ctx)
			err = errors.Join(err, c.Close())
		}
		early <- err
	}
	for range 2 {
		go connect()
		d := activateProcess(t, []*os.File{f})
		if err := <-early; err != nil {
			t.Fatalf("who came before the daemon: %v\n%s", err, d.stderr.String())
		}
		_ = dial(t, path).Close()
		d.says(t, "socket="+path)
		// A second daemon on the path that somebody starts by hand.
		second := spawn(t, path)
		second.wait(t, stopTime, exitFail)
		second.says(t, "listening on the socket already")
		d.signal(t, syscall.SIGTERM)
		d.wait(t, stopTime, exitClean)
		if strings.Contains(d.stderr.String(), "level=WARN") {
			t.Errorf("it warns:\n%s", d.stderr.String())
		}
		after, err := os.Lstat(path)
		if err != nil || !os.SameFile(before, after) {
			t.Fatalf("the socket is another: %v", err)
		}
		if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a lock: %v", err)
		}
	}
}

// A socket that does not pass credentials by itself serves who comes after the
// daemon, which says what is wrong.
func TestSocketWithoutCredentials(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	d := activateProcess(t, []*os.File{seqpacket(t, path, unix.SOCK_SEQPACKET, false)})
	d.says(t, "PassCredentials=yes")
	d.says(t, "msg=ready")
	_ = dial(t, path).Close()
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// Who waits on a socket of systemd's for a daemon that cannot start is sent away
// and does not wait for a better one.
func TestSocketActivationFails(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	f := seqpacket(t, path, unix.SOCK_SEQPACKET, true)
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := activateProcess(t, []*os.File{f}, "--activate", "data@"+path+".none")
	d.wait(t, stopTime, exitFail)
	if err := conn.SetReadDeadline(time.Now().Add(stopTime)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it still waits: %d, %v", n, err)
	}
	// The next daemon serves on it.
	d = activateProcess(t, []*os.File{f})
	_ = dial(t, path).Close()
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// A descriptor that is no such socket is told for what it is.
func TestSocketActivationErrors(t *testing.T) {
	dir := shortDir(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	file, err := os.Open(writeFile(t, filepath.Join(dir, "file"), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	deaf := os.NewFile(uintptr(fd), "deaf")
	defer deaf.Close()
	good := seqpacket(t, filepath.Join(dir, "good"), unix.SOCK_SEQPACKET, true)
	for _, c := range []struct {
		name string
		fds  []*os.File
		want string
	}{
		{"stream", []*os.File{seqpacket(t, filepath.Join(dir, "stream"), unix.SOCK_STREAM, true)}, "of type SOCK_STREAM: want a listening Unix socket of type SOCK_SEQPACKET"},
		{"datagram", []*os.File{seqpacket(t, filepath.Join(dir, "dgram"), unix.SOCK_DGRAM, true)}, "of type SOCK_DGRAM"},
		{"tcp", []*os.File{tcpFile}, "of family 2"},
		{"file", []*os.File{file}, "it is no socket"},
		{"deaf", []*os.File{deaf}, "it does not listen"},
		{"two", []*os.File{good, file}, "2 descriptors were passed; want one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := activateProcess(t, c.fds)
			d.wait(t, stopTime, exitFail)
			if !strings.Contains(d.stderr.String(), c.want) {
				t.Errorf("does not say %q:\n%s", c.want, d.stderr.String())
			}
		})
	}
}

// A daemon that may have fewer descriptors than its sessions take says so, with what
// to raise.
func TestFewDescriptors(t *testing.T) {
	dir := shortDir(t)
	for sessions, warns := range map[int]bool{64: false, 1 << 20: true} {
		conf := writeFile(t, filepath.Join(dir, "conf"), fmt.Sprintf("[limits]\nsessions = %d\n[deaths]\nebpf = 'off'\n", sessions))
		d := spawn(t, filepath.Join(dir, "s"), "--config", conf)
		d.says(t, "msg=ready")
		if got := strings.Contains(d.stderr.String(), "RLIMIT_NOFILE"); got != warns {
			t.Errorf("%d sessions: warned: %v\n%s", sessions, got, d.stderr.String())
		}
		d.signal(t, syscall.SIGTERM)
		d.wait(t, stopTime, exitClean)
	}
}
