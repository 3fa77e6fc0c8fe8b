package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// nobody is who plays a user without rights.
const nobody = 65534

// asNobody makes a process of the test binary that runs without rights, if the
// test has any to give up, with what a login leaves it: no memory to lock and few
// descriptors.
func asNobody(t *testing.T, role string, args ...string) *process {
	t.Helper()
	p := command(role, args...)
	self := selfPath(t)
	p.cmd.Path = "/bin/sh"
	p.cmd.Args = append([]string{"sh", "-c", `ulimit -l 0 && ulimit -n 256 && exec "$0" "$@"`, self}, args...)
	if os.Geteuid() == 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	p.cmd.Dir = "/"
	return p
}

// homeOf makes a folder of nobody's.
func homeOf(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A user without rights runs the daemon on files, from creation to destruction,
// as any other; what it makes is its own.
func TestUnprivileged(t *testing.T) {
	home := homeOf(t)
	dev := filepath.Join(home, "drive")
	writeFile(t, dev, "")
	if err := os.Truncate(dev, 64<<20); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dev, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	d := asNobody(t, roleDaemon, "--metrics", filepath.Join(home, "m"))
	d.cmd.Env = append(d.cmd.Env, "XDG_RUNTIME_DIR="+home)
	d.start(t)
	socket := filepath.Join(home, "mpool", "mpoold.sock")
	d.says(t, "socket="+socket)
	user := asNobody(t, roleUser, socket, dev).start(t)
	user.wait(t, stopTime, 0)
	scrape(t, filepath.Join(home, "m"))
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
	if strings.Contains(d.stderr.String(), "level=ERROR") {
		t.Errorf("it complains:\n%s", d.stderr.String())
	}
}

// A user is the owner that the configuration says, and another one as soon as it
// was read again.
//
// proves S44
func TestOwnersOfTheConfiguration(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user as well")
	}
	ctx := context.Background()
	dir := shortDir(t)
	socket, conf := filepath.Join(dir, "s"), filepath.Join(dir, "conf")
	rule := "[[owner]]\npool = 'data'\nuid = 65534\nowner = 'web'\n"
	d := spawn(t, socket, "--config", writeFile(t, conf, rule))
	p := pool(t, socket, drive(t))
	web, err := p.AddOwner(ctx, "web", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []uint32{0, web} {
		b, err := p.AllocMblock(ctx, api.AllocOptions{Owner: owner})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		tenant := asNobody(t, roleTenant, socket).start(t)
		tenant.wait(t, stopTime, 0)
		if got := strings.TrimSpace(tenant.stderr.String()); got != want {
			t.Errorf("it %s, want that it %s", got, want)
		}
	}
	asWeb := fmt.Sprintf("sees [%d], stores as %d", web, web)
	reload := func(text string) {
		t.Helper()
		writeFile(t, conf, text)
		n := len(d.stderr.String())
		d.signal(t, syscall.SIGHUP)
		d.saysAfter(t, n, "configuration read again")
	}
	expect(asWeb)
	reload("")
	expect("sees [0], stores as 0")
	reload(rule)
	expect(asWeb)
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// What a user may not do is told with what to do about it.
func TestUnprivilegedErrors(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root's files are there to be refused.
		t.Log("as root: with a user without rights")
	}
	home := homeOf(t)
	closed := filepath.Join(shortDir(t), "closed")
	if err := os.Mkdir(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := writeFile(t, filepath.Join(home, "conf"), "")
	if err := os.Chmod(conf, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(closed, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	good := filepath.Join(home, "s")
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no socket", nil, exitUsage, []string{"neither MPOOL_SOCKET nor XDG_RUNTIME_DIR is set; say --socket"}},
		{"socket", []string{"--socket", closed + "/s"}, exitFail, []string{closed, "permission denied", "say --socket"}},
		{"socket's folder", []string{"--socket", closed + "/sub/s"}, exitFail, []string{closed + "/sub is not there"}},
		{"configuration", []string{"--socket", good, "--config", conf}, exitUsage, []string{"read configuration", conf, "permission denied"}},
		{"metrics", []string{"--socket", good, "--metrics", closed + "/m"}, exitFail, []string{"metrics: claim socket " + closed + "/m", "permission denied"}},
		{"port", []string{"--socket", good, "--metrics", "127.0.0.1:1"}, exitFail, []string{"metrics:", "127.0.0.1:1"}},
		{"drive", []string{"--socket", good, "--activate", "data@" + closed + "/none"}, exitFail, []string{"pools not activated: data", closed + "/none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "port" && mayBindLowPorts() {
				c.args[3], c.want = "10.0.0.1:1", []string{"metrics", "which other hosts may reach"}
				c.code = exitUsage
			}
			d := asNobody(t, roleDaemon, c.args...)
			d.cmd.Env = append(d.cmd.Env, "XDG_RUNTIME_DIR=")
			d.start(t)
			d.wait(t, stopTime, c.code)
			for _, want := range c.want {
				if !strings.Contains(d.stderr.String(), want) {
					t.Errorf("does not say %q:\n%s", want, d.stderr.String())
				}
			}
			if n := strings.Count(d.stderr.String(), "\n"); n > 2 {
				t.Errorf("says %d lines:\n%s", n, d.stderr.String())
			}
		})
	}
}

// mayBindLowPorts says whether this system lets everybody have any port.
func mayBindLowPorts() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}
