package death

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// proves S33 S34: deaths that the kernel's program does not know of, because its
// map has been emptied, are noticed.
func TestBPFMapEmptied(t *testing.T) {
	needRoot(t)
	k := newKill(t, "require")
	k.batch(20, 20, true)
	k.before = func() {
		var process uint64
		var nothing uint8
		for it := k.watch.m.Iterate(); it.Next(&process, &nothing); it = k.watch.m.Iterate() {
			if err := k.watch.m.Delete(process); err != nil {
				t.Fatal(err)
			}
		}
		k.watch.idle.watched = 0 // those who live on are gone from it, too
	}
	k.batch(40, 40, true)
	k.living.idle(func() { k.watch.compare(40) })
	k.living.finish(t)
	t.Logf("noticed by %v", k.watch.events.by)
}

// proves S33 S34: deaths for which the kernel's ring buffer has no room, because
// so many others came while the daemon did not read, are noticed.
func TestBPFRingOverrun(t *testing.T) {
	needRoot(t)
	k := newKill(t, "require")
	k.batch(20, 20, true)
	die := filepath.Join(t.TempDir(), "die")
	if out, err := exec.Command("cc", "-O1", "-pthread", "-o", die, "../../uhandle/exitwatch/testdata/die.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	const at = 40
	list := make([]*victimPlan, at)
	for i := range list {
		list[i] = newVictimPlan(k.rng, k.root, at)
		list[i].args.way, list[i].args.number, list[i].atWork = bySignal, int(unix.SIGKILL), true
	}
	var full, more uint64 // records that there was no room for
	k.before = func() {
		k.d.Signal(syscall.SIGSTOP)
		for full == 0 { // some 10,000 deaths; the daemon may have read a few before it stopped
			k.strangers(die, 2000)
			full = lostRecords(t, k.d)
		}
	}
	k.after = func() {
		more = lostRecords(t, k.d) - full
		k.d.Signal(syscall.SIGCONT)
	}
	k.carryOut(list, at, true)
	k.living.idle(func() { k.watch.compare(at) })
	if more < at {
		t.Errorf("the ring had no room for %d of %d deaths", more, at)
	}
	k.before, k.after = func() {}, func() {}
	k.batch(40, 40, true)
	k.living.idle(func() { k.watch.compare(2 * at) })
	k.living.finish(t)
	t.Logf("noticed by %v", k.watch.events.by)
}

// strangers has so many processes die of which the daemon's program thinks that
// they are clients.
func (k *kill) strangers(die string, n int) {
	k.t.Helper()
	cmd := exec.Command(die, "spawn", fmt.Sprint(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	watched := make([]uint64, 0, n)
	for range n {
		var pid int32
		if _, err := fmt.Fscanln(lines, &pid); err != nil {
			k.t.Fatal(err)
		}
		p, err := uhandle.Open(pid)
		if err != nil {
			k.t.Fatal(err)
		}
		watched = append(watched, p.Inode())
		p.Close()
		if err := k.watch.m.Put(watched[len(watched)-1], uint8(0)); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil {
		k.t.Fatal(err)
	}
	_, _ = lines.ReadString(0) // until all are dead
	_ = cmd.Wait()             // "signal: killed" is what is wanted
	for _, process := range watched {
		if err := k.watch.m.Delete(process); err != nil {
			k.t.Fatal(err)
		}
	}
}
