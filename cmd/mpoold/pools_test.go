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
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

// makePools makes pools on the given drives and ends the daemon that made them.
func makePools(t *testing.T, pools map[string][]string) {
	t.Helper()
	ctx := context.Background()
	socket := filepath.Join(shortDir(t), "s")
	d := spawn(t, socket)
	c := dial(t, socket)
	for name, devices := range pools {
		if _, err := c.CreatePool(ctx, name, devices, api.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// active returns the active pools with the number of their drives.
func active(t *testing.T, socket string) string {
	t.Helper()
	infos, err := dial(t, socket).Pools(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i := range infos {
		list = append(list, fmt.Sprintf("%s:%d", infos[i].Name, len(infos[i].Drives)))
	}
	return strings.Join(list, " ")
}

// All pools of the configuration and of the command line are activated, each
// with all its drives; optional ones that cannot be are told and left out.
func TestSeveralPools(t *testing.T) {
	a1, a2, b, c := drive(t), drive(t), drive(t), drive(t)
	makePools(t, map[string][]string{"a": {a1, a2}, "b": {b}, "c": {c}})
	dir := shortDir(t)
	conf := writeFile(t, filepath.Join(dir, "conf"), fmt.Sprintf(
		"[[activate]]\npool = 'a'\ndevices = [%q, %q]\n[[activate]]\npool = 'b'\ndevices = [%q]\noptional = true\n"+
			"[[activate]]\npool = 'none'\ndevices = [%q]\noptional = true\n", a1, a2, b, filepath.Join(dir, "none")))
	socket := filepath.Join(dir, "s")
	d := spawn(t, socket, "--config", conf, "--activate", "c@"+c)
	if got := active(t, socket); got != "a:2 b:1 c:1" {
		t.Errorf("active are %q", got)
	}
	d.says(t, `msg="pool not activated" pool=none optional=true`)
	d.says(t, "no such file")
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// A pool that must be there and is not ends the daemon, which says which one and
// why, and lets go of the others.
func TestRequiredPoolFails(t *testing.T) {
	a, b, blank := drive(t), drive(t), drive(t)
	makePools(t, map[string][]string{"a": {a}, "b": {b}})
	socket := filepath.Join(shortDir(t), "s")
	d := spawn(t, socket, "--activate", "a@"+a, "--activate", "lost@"+blank, "--activate", "wrong@"+b)
	d.wait(t, stopTime, exitFail)
	for _, want := range []string{`msg="pool not activated" pool=lost optional=false`, blank, `msg="pool not activated" pool=wrong`, `belongs to pool \"b\", not \"wrong\"`} {
		d.says(t, want)
	}
	if out := d.stderr.String(); strings.Contains(out, "msg=ready") || strings.Contains(out, "not activated\" pool=a") {
		t.Errorf("it says:\n%s", out)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("its socket is there")
	}
	d = spawn(t, socket, "--activate", "a@"+a, "--activate", "b@"+b)
	if got := active(t, socket); got != "a:1 b:1" {
		t.Errorf("active are %q", got)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// An optional pool whose drive stalls does not keep the others from clients; it
// comes when the drive does.
//
// proves S42
func TestOptionalPoolStalls(t *testing.T) {
	loopdev.RequireRoot(t)
	t.Parallel()
	faulty := faultfs.New(t, 64<<20, faultfs.Options{})
	dev := loopdev.New(t, 0, loopdev.Options{Backing: faulty.Path})
	a := drive(t)
	makePools(t, map[string][]string{"a": {a}, "slow": {dev.Path}})
	release := faulty.Stall(faultfs.Stall{Code: bdev.OpWrite})
	defer release()
	dir := shortDir(t)
	socket := filepath.Join(dir, "s")
	conf := writeFile(t, filepath.Join(dir, "conf"), fmt.Sprintf("[[activate]]\npool = 'slow'\ndevices = [%q]\noptional = true\n", dev.Path))
	d := spawn(t, socket, "--config", conf, "--activate", "a@"+a)
	d.says(t, "ready without optional pools")
	if got := active(t, socket); got != "a:1" {
		t.Errorf("active are %q", got)
	}
	release()
	d.says(t, `msg="pool activated" pool=slow`)
	if got := active(t, socket); got != "a:1 slow:1" {
		t.Errorf("active are %q", got)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}

// Without devices the pool is found among all block devices of the host.
func TestActivateByName(t *testing.T) {
	loopdev.RequireRoot(t)
	dev := loopdev.New(t, 64<<20, loopdev.Options{SectorSize: 4096})
	name := fmt.Sprintf("found-%d", os.Getpid())
	makePools(t, map[string][]string{name: {dev.Path}})
	socket := filepath.Join(shortDir(t), "s")
	d := spawn(t, socket, "--activate", name)
	if got := active(t, socket); got != name+":1" {
		t.Errorf("active are %q", got)
	}
	d.signal(t, syscall.SIGTERM)
	d.wait(t, stopTime, exitClean)
}
