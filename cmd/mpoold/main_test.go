package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		play(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// running is a daemon in this process.
type running struct {
	signals chan os.Signal
	stderr  testdaemon.Buffer
	code    chan int
	socket  string
}

func start(t *testing.T, socket string, args ...string) *running {
	t.Helper()
	r := &running{signals: make(chan os.Signal, 8), code: make(chan int, 1), socket: socket}
	d := &daemon{stdout: &testdaemon.Buffer{}, stderr: &r.stderr, signals: r.signals, getenv: func(string) string { return "" }}
	go func() { r.code <- d.run(append([]string{"--socket", socket}, args...)) }()
	return r
}

// dial waits until the daemon is ready.
func (r *running) dial(t *testing.T) *client.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	for {
		c, err := client.Dial(ctx, client.Options{Socket: r.socket, Hello: stopTime, Reconnect: -1})
		if err == nil {
			return c
		}
		if ctx.Err() != nil || !errors.Is(err, client.ErrNoDaemon) {
			t.Fatalf("%v\n%s", err, r.stderr.String())
		}
		select {
		case code := <-r.code:
			t.Fatalf("exited with %d:\n%s", code, r.stderr.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (r *running) wait(t *testing.T, want int) {
	t.Helper()
	select {
	case code := <-r.code:
		if code != want {
			t.Errorf("exit code %d, want %d:\n%s", code, want, r.stderr.String())
		}
	case <-time.After(stopTime):
		t.Fatalf("does not end:\n%s", r.stderr.String())
	}
}

func drive(t *testing.T) string {
	t.Helper()
	return driveOf(t, 64<<20)
}

// driveOf returns a file of so many bytes that stands for a drive.
func driveOf(t *testing.T, size int64) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "drive") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path, err := filepath.Abs(filepath.Join(dir, "drive"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// What was committed is there after a restart that activates the pool.
//
// proves S36
func TestRestart(t *testing.T) {
	ctx := context.Background()
	dev, socket := drive(t), filepath.Join(t.TempDir(), "s")
	r := start(t, socket)
	c := r.dial(t)
	if _, err := c.CreatePool(ctx, "data", []string{dev}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if _, err := b.Write(ctx, data); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	lost, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: 4096})
	if err != nil {
		t.Fatal(err)
	}
	r.signals <- syscall.SIGTERM
	r.wait(t, exitClean)
	// The connection is gone, and the handles with it.
	if _, err := b.Info(ctx); !errors.Is(err, api.EBADF) {
		t.Errorf("after the daemon's end: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{socket, socket + ".lock"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind: %v", path, err)
		}
	}

	r = start(t, socket, "--activate", "data@"+dev)
	c = r.dial(t)
	p, err = c.OpenPool(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Mblock(ctx, lost.ID()); !errors.Is(err, api.ENOENT) {
		t.Errorf("the uncommitted one: %v", err)
	}
	again, err := p.Mblock(ctx, b.ID())
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := again.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	v, err := c.Version(ctx)
	if err != nil || v.Daemon == "" || v.PID != int32(os.Getpid()) {
		t.Errorf("version %+v, %v", v, err)
	}
	r.signals <- syscall.SIGINT
	r.wait(t, exitClean)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestTwoDaemons(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	first := start(t, socket)
	if err := first.dial(t).Close(); err != nil {
		t.Error(err)
	}
	second := start(t, socket)
	second.wait(t, exitFail)
	if out := second.stderr.String(); !strings.Contains(out, "listening on the socket already") {
		t.Errorf("it says:\n%s", out)
	}
	// The first one is not disturbed.
	if err := first.dial(t).Close(); err != nil {
		t.Error(err)
	}
	first.signals <- syscall.SIGTERM
	first.wait(t, exitClean)
}

func TestStaleSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := start(t, socket)
	if err := r.dial(t).Close(); err != nil {
		t.Error(err)
	}
	r.signals <- syscall.SIGTERM
	r.wait(t, exitClean)

	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, socket)
	r.wait(t, exitFail)
	if b, err := os.ReadFile(socket); err != nil || string(b) != "precious" {
		t.Errorf("a file that is no socket: %q, %v", b, err)
	}
}

func TestActivateFails(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	r := start(t, socket, "--activate", "data@"+drive(t))
	r.wait(t, exitFail)
	if out := r.stderr.String(); !strings.Contains(out, "pools not activated: data") {
		t.Errorf("it says:\n%s", out)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is there: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000") // without it only root has a default socket
	dir := t.TempDir()
	conf := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := conf("good", "socket = '/file'\nlog_format = 'json'\n[limits]\nrequests = 8\n[[activate]]\npool = 'a'\ndevices = ['/dev/x']\n")
	for _, c := range []struct {
		name string
		args []string
		env  string
		code int
		out  []string // on stdout, or on stderr if it fails
	}{
		{"help", []string{"--help"}, "", exitClean, []string{"--activate POOL@DEV"}},
		{"version", []string{"--version"}, "", exitClean, []string{"mpoold "}},
		{"unknown flag", []string{"--nonsense"}, "", exitUsage, []string{"nonsense", "--help"}},
		{"argument", []string{"data"}, "", exitUsage, []string{`"data"`}},
		{"no pool", []string{"--activate", "@/dev/x"}, "", exitUsage, []string{"POOL@DEV"}},
		{"empty device", []string{"--activate", "a@/dev/x,"}, "", exitUsage, []string{"empty device"}},
		{"log level", []string{"--log-level", "loud"}, "", exitUsage, []string{`"loud"`}},
		{"log format", []string{"--log-format", "xml"}, "", exitUsage, []string{`"xml"`}},
		{"no file", []string{"--config", filepath.Join(dir, "none")}, "", exitUsage, []string{"read configuration"}},
		{"unknown key", []string{"--config", conf("key", "socket = 'x'\n[limits]\nsesions = 1\n")}, "", exitUsage, []string{"key:3: limits.sesions: there is no such key"}},
		{"wrong type", []string{"--config", conf("type", "socket = 1\n")}, "", exitUsage, []string{"type:1: socket is a TOML integer"}},
		{"mode", []string{"--config", conf("mode", "socket_mode = '0999'\n")}, "", exitUsage, []string{"socket_mode"}},
		{"limit", []string{"--config", conf("limit", "[limits]\nrequests = 0\n")}, "", exitUsage, []string{"requests"}},
		{"print", []string{"--print-config"}, "/env", exitClean, []string{"socket = '/env'", "requests = 64"}},
		{
			"print a file",
			[]string{"--config", good, "--print-config", "--activate", "b@/dev/y,/dev/z"},
			"", exitClean,
			[]string{"socket = '/file'", "log_format = 'json'", "requests = 8", "pool = 'a'", "pool = 'b'", "'/dev/z'"},
		},
		{
			"flags before environment before file",
			[]string{"--config", good, "--socket", "/flag", "--log-format", "text", "--print-config"},
			"/env", exitClean,
			[]string{"socket = '/flag'", "log_format = 'text'"},
		},
		{"environment before file", []string{"--config", good, "--print-config"}, "/env", exitClean, []string{"socket = '/env'"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr testdaemon.Buffer
			d := &daemon{stdout: &stdout, stderr: &stderr, getenv: func(k string) string {
				if k == "MPOOL_SOCKET" {
					return c.env
				}
				return ""
			}}
			if code := d.run(c.args); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			out := stdout.String()
			if c.code != exitClean {
				out = stderr.String()
			}
			for _, want := range c.out {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
		})
	}
}
