package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is systemd's end of the notifications.
type manager struct {
	*net.UnixConn
	path string
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(dir, "notify")}
	var err error
	m.UnixConn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// next returns the next notification but the watchdog's.
func (m *manager) next(t *testing.T, patience time.Duration) string {
	t.Helper()
	for {
		text := m.any(t, patience)
		if text != "WATCHDOG=1" {
			return text
		}
	}
}

// any returns the next notification, or "".
func (m *manager) any(t *testing.T, patience time.Duration) string {
	t.Helper()
	b := make([]byte, 4096)
	if err := m.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := m.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// systemd is told when the daemon is ready, which is not before it serves, when
// it reloads, when it stops, and all the while that it lives.
func TestNotify(t *testing.T) {
	dir := shortDir(t)
	m := newManager(t, dir)
	socket := filepath.Join(dir, "s")
	d := command(roleDaemon, "--socket", socket)
	d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=60000", "WATCHDOG_PID=")
	d.start(t)
	if got := m.next(t, stopTime); !strings.HasPrefix(got, "READY=1\nSTATUS=0 pools active") {
		t.Fatalf("first it tells %q", got)
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatalf("it is ready, but: %v", err)
	}
	_ = c.Close()
	for range 3 {
		if got := m.any(t, stopTime); got != "WATCHDOG=1" {
			t.Errorf("it tells %q, and not that it lives", got)
		}
	}
	d.signal(t, syscall.SIGHUP)
	if got := m.next(t, stopTime); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("at SIGHUP it tells %q", got)
	}
	if got := m.next(t, stopTime); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("after it has reloaded it tells %q", got)
	}
	d.signal(t, syscall.SIGTERM)
	if got := m.next(t, stopTime); got != "STOPPING=1" {
		t.Errorf("when it stops it tells %q", got)
	}
	d.wait(t, stopTime, exitClean)
}

// Without a watchdog nothing is told while nothing happens, and a manager that
// is gone is no reason to end.
func TestNotifyNobody(t *testing.T) {
	dir := shortDir(t)
	m := newManager(t, dir)
	d := command(roleDaemon, "--socket", filepath.Join(dir, "s"))
	d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+m.path)
	d.start(t)
	if got := m.any(t, stopTime); !strings.HasPrefix(got, "READY=1\n") {
		t.Fatalf("it tells %q", got)
	}
	if got := m.any(t, 300*time.Millisecond); got != "" {
		t.Errorf("unasked it tells %q", got)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGHUP)
	d.says(t, "cannot notify systemd")
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// The daemon tells of a start that fails by ending, and never that it is ready.
func TestNotifyFailure(t *testing.T) {
	dir := shortDir(t)
	m := newManager(t, dir)
	d := command(roleDaemon, "--socket", filepath.Join(dir, "s"), "--activate", "data@"+drive(t))
	d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+m.path)
	d.start(t)
	d.wait(t, stopTime, exitFail)
	for got := m.any(t, 200*time.Millisecond); got != ""; got = m.any(t, 200*time.Millisecond) {
		if strings.Contains(got, "READY") {
			t.Errorf("it tells %q", got)
		}
	}
}
