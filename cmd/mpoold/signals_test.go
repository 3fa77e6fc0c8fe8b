package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

// stopTime bounds the wait for a process's end, and all others for what must
// happen. It decides only how long a test that fails takes: that the daemon ends in
// its time, whatever holds it up, is that it ends at all.
const stopTime = 3 * time.Minute

// pool makes a pool "data" on a drive of its own in a running daemon.
func pool(t *testing.T, socket, dev string) api.Pool {
	t.Helper()
	ctx := context.Background()
	c := dial(t, socket)
	if _, err := c.CreatePool(ctx, "data", []string{dev}, api.CreateOptions{Mode: 0o666}); err != nil {
		t.Fatal(err)
	}
	p, err := c.OpenPool(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// SIGTERM under a hundred writing clients: the daemon stops in time and clean,
// no client hangs or is told anything but that the daemon is gone.
func TestStopUnderLoad(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	dev := driveOf(t, 512<<20)
	conf := writeFile(t, filepath.Join(t.TempDir(), "conf"), "[limits]\nhello_timeout = '3m'\n") // a hundred at once
	d := spawn(t, socket, "--config", conf)
	pool(t, socket, dev)
	writers := command(roleWriters, socket).start(t)
	writers.says(t, "writing\n")
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	if strings.Contains(d.stderr.String(), "level=ERROR") {
		t.Errorf("not a clean stop:\n%s", d.stderr.String())
	}
	writers.wait(t, stopTime, 0)
	// The pool is whole, and nothing of the clients is left.
	d = spawn(t, socket, "--activate", "data@"+dev)
	infos, err := dial(t, socket).Pools(context.Background())
	if err != nil || len(infos) != 1 || infos[0].Space.Uncommitted != 0 || infos[0].Health != "optimal" {
		t.Errorf("the pool is %+v, %v", infos, err)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// hello opens a session by hand.
func hello(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	send(t, conn, ioctl.Header{Op: ioctl.OpHello, Tag: 1}, &ioctl.Hello{MinVersion: ioctl.Version, MaxVersion: ioctl.Version})
	if _, err := conn.Read(make([]byte, ioctl.MaxMessage)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// send sends a request; it returns false when there is no room for it.
func send(t *testing.T, conn *net.UnixConn, h ioctl.Header, m ioctl.Message) bool {
	t.Helper()
	b, err := ioctl.Append(nil, h, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Write(b)
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	return err == nil
}

// stuff asks without reading answers until the daemon takes no more.
func stuff(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	for tag := uint64(2); send(t, conn, ioctl.Header{Op: ioctl.OpVersion, Tag: tag}, &ioctl.Empty{}); tag++ {
		if tag > 1<<20 {
			t.Fatal("the daemon takes requests without end")
		}
	}
}

// SIGTERM with a client that asks and asks and never reads an answer.
func TestStopWithStuckClient(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortDir(t), "s")
	d := spawn(t, socket)
	_ = dial(t, socket).Close()
	conn := hello(t, socket)
	stuff(t, conn)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// SIGTERM while a drive does not answer, under a loop device as a real one. A
// metrics reader is answered all the while, and the daemon ends by itself.
func TestStopWithStalledDrive(t *testing.T) {
	loopdev.RequireRoot(t)
	t.Parallel()
	dir := shortDir(t)
	socket, metrics := filepath.Join(dir, "s"), filepath.Join(dir, "m")
	faulty := faultfs.New(t, 64<<20, faultfs.Options{})
	dev := loopdev.New(t, 0, loopdev.Options{Backing: faulty.Path})
	d := spawn(t, socket, "--metrics", metrics)
	p := pool(t, socket, dev.Path)
	b, err := p.AllocMblock(context.Background(), api.AllocOptions{Capacity: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	release := faulty.Stall(faultfs.Stall{Code: bdev.OpWrite})
	defer release()
	written := make(chan error, 1)
	go func() {
		_, err := b.Write(context.Background(), pattern(1<<20))
		if err == nil {
			err = b.Commit(context.Background())
		}
		written <- err
	}()
	faulty.Waiting(t, 1)
	text := scrape(t, metrics)
	if !strings.Contains(text, `mpool_drive_operations_in_flight{drive="`+dev.Path+`",pool="data"}`) ||
		strings.Contains(text, `mpool_drive_operations_in_flight{drive="`+dev.Path+`",pool="data"} 0`) {
		t.Errorf("nothing is in flight:\n%s", text)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	if err := <-written; err == nil {
		t.Error("the write came through")
	}
}

// Metrics are there while the drive with the metadata stalls and an administrator
// waits for it.
//
// proves S42
func TestMetricsWhileMetadataStalls(t *testing.T) {
	loopdev.RequireRoot(t)
	t.Parallel()
	dir := shortDir(t)
	socket, metrics := filepath.Join(dir, "s"), filepath.Join(dir, "m")
	faulty := faultfs.New(t, 64<<20, faultfs.Options{})
	d := spawn(t, socket, "--metrics", metrics)
	p := pool(t, socket, faulty.Path)
	release := faulty.Stall(faultfs.Stall{Code: bdev.OpFlush})
	defer release()
	c := dial(t, socket)
	label := "x"
	changed, added := make(chan error, 1), make(chan error, 1)
	go func() { changed <- c.SetPool(context.Background(), "data", api.PoolSettings{Label: &label}) }()
	faulty.Waiting(t, 1)
	go func() {
		_, err := p.AddOwner(context.Background(), "web", 0)
		added <- err
	}()
	d.signal(t, syscall.SIGHUP) // which reads the owners
	d.says(t, "configuration read again")
	if text := scrape(t, metrics); !strings.Contains(text, `mpool_pool_health{health="optimal",pool="data"} 1`) {
		t.Errorf("metrics are:\n%s", text)
	}
	release()
	for _, done := range []chan error{changed, added} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// scrape reads the metrics from a Unix socket.
func scrape(t *testing.T, path string) string {
	t.Helper()
	text, err := get(path, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// get gets a page by a Unix socket.
func get(path, url string) (string, error) {
	c := http.Client{
		Timeout: stopTime,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}},
	}
	r, err := c.Get("http://localhost" + url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	return string(b), err
}

// A second signal ends the daemon at once, while a client holds up the first.
func TestSecondSignalAtOnce(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	conf := writeFile(t, filepath.Join(t.TempDir(), "conf"), "shutdown_timeout = '1h'\n")
	d := spawn(t, socket, "--config", conf)
	_ = dial(t, socket).Close()
	conn := hello(t, socket)
	stuff(t, conn)
	d.signal(t, syscall.SIGTERM)
	d.says(t, "msg=stopping")
	d.signal(t, syscall.SIGINT)
	d.wait(t, stopTime, exitFail)
	d.says(t, "stopped by a second signal")
}

// SIGTERM while a pool is being activated that a drive holds up.
func TestStopWhileActivating(t *testing.T) {
	loopdev.RequireRoot(t)
	socket := filepath.Join(shortDir(t), "s")
	faulty := faultfs.New(t, 64<<20, faultfs.Options{})
	dev := loopdev.New(t, 0, loopdev.Options{Backing: faulty.Path})
	d := spawn(t, socket)
	pool(t, socket, dev.Path)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	defer faulty.Stall(faultfs.Stall{Code: bdev.OpWrite})()
	d = spawn(t, socket, "--activate", "data@"+dev.Path)
	faulty.Waiting(t, 1)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// SIGHUP takes what can change, names what cannot, and changes nothing when the
// file is wrong.
func TestReload(t *testing.T) {
	dir := shortDir(t)
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, "log_level = 'warn'\n")
	d := spawn(t, filepath.Join(dir, "s"), "--config", conf, "--metrics", filepath.Join(dir, "m"))
	_ = dial(t, filepath.Join(dir, "s")).Close()
	if out := d.stderr.String(); out != "" {
		t.Errorf("at warn it says:\n%s", out)
	}
	hup := func(text string, says ...string) {
		t.Helper()
		writeFile(t, conf, text)
		n := len(d.stderr.String())
		d.signal(t, syscall.SIGHUP)
		for _, s := range says {
			d.saysAfter(t, n, s)
		}
	}
	hup("log_level = 'nonsense'\n", "configuration not read again", "conf:1: log_level")
	if text := scrape(t, filepath.Join(dir, "m")); !strings.Contains(text, "mpool_config_reload_successful 0") {
		t.Errorf("metrics say:\n%s", text)
	}
	hup("log_level = 'info'\n[limits]\nrequests = 7\n[[activate]]\npool = 'p'\n[[owner]]\npool = 'data'\nuid = 1\nowner = 'o'\n",
		"changes of the configuration that take a restart", `keys="activate, limits.requests"`, "configuration read again")
	if text := scrape(t, filepath.Join(dir, "m")); !strings.Contains(text, "mpool_config_reload_successful 1") {
		t.Errorf("metrics say:\n%s", text)
	}
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGHUP)
	d.says(t, "no such file")
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// Whoever reads the log may go away, or just not read: the daemon serves, and
// stops in time.
func TestLogReaderGone(t *testing.T) {
	for _, c := range []struct {
		name string
		gone bool
	}{{"gone", true}, {"stuck", false}} {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "s")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
				t.Fatal(err)
			}
			d := command(roleDaemon, "--socket", socket, "--log-level", "debug", "--metrics", socket+"m")
			d.cmd.Stderr = w
			d.start(t)
			_ = dial(t, socket).Close()
			if c.gone {
				_ = r.Close()
			}
			// Each is told when it opens and when it ends.
			for range 200 {
				_ = dial(t, socket).Close()
			}
			scrape(t, socket+"m")
			d.signal(t, syscall.SIGTERM)
			d.wait(t, stopTime, exitClean)
		})
	}
}

// Without any standard stream nothing is written where a log line must not be.
func TestClosedStandardStreams(t *testing.T) {
	dir := shortDir(t)
	socket, dev := filepath.Join(dir, "s"), drive(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := command(roleDaemon)
	d.cmd.Path = "/bin/sh"
	d.cmd.Args = []string{"sh", "-c", `exec "$0" "$@" <&- >&- 2>&-`, self, "--socket", socket, "--log-level", "debug"}
	d.start(t)
	pool(t, socket, dev)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	for _, path := range []string{dev, socket + ".lock"} {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "level=") {
			t.Errorf("a log line is in %s", path)
		}
	}
}
