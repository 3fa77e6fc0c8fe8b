package credits

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	rounds = flag.Int("credits.rounds", 4, "how often processes with credits die")
	seed   = flag.Uint64("credits.seed", 0, "seed of what they do and when they die; 0: from the clock")
)

const (
	victims  = 4       // processes of a round
	objects  = 4       // mblocks that they all want
	mostHeap = 2 << 20 // bytes by which the daemon's heap may differ from what it was after the first rounds: the events it keeps are half of it
)

// counted are the metrics that say what there is now: all of them are as in the
// beginning when the dead are gone. Tasks of low priority are the pool's own.
var counted = []string{
	"mpool_sessions ", "mpool_handles ", "mpool_arena_bytes ", "mpool_pool_handles", "mpool_pool_orphans", "mpool_pool_objects",
	"mpool_credit_objects", "mpool_credit_debtors", "mpool_exit_watch_processes", "mpool_wrong_books_total",
	`mpool_scope_used{kind="memory"`, `mpool_scope_used{kind="connections"`, `mpool_scope_used{kind="descriptors"`,
	`mpool_scope_used{kind="inbound"`, `mpool_scope_used{kind="tasks_high"`, `mpool_scope_used{kind="tasks_medium"`,
}

// proves G47: after processes that hold credits, wait for some, open, delete and make
// objects have died at any moment, in any way, nothing is left of them: no credit, no
// handle, nothing in the books of what they used, no memory.
func TestDeaths(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-credits.seed=%d", n)
	rng := rand.New(rand.NewPCG(n, 0))
	b := newBench(t, "[credits]\ncall_back = '20ms'\n")
	b.remove([]layout.ObjectID{b.mblock(), b.mlog()}) // the pool's table of objects has its memory from now on
	was, heap := b.alone(nil), int64(0)
	for _, name := range counted {
		if len(b.d.Metrics(name)) == 0 {
			t.Errorf("there is no metric %s", name)
		}
	}
	b.dial()
	p := plan{Log: b.mlog()}
	for range objects {
		p.IDs = append(p.IDs, b.mblock())
	}
	var deaths [ways]int
	began := time.Now()
	for round := range *rounds {
		var all sync.WaitGroup
		for range victims {
			v := p
			v.Seed, v.Way, v.Steps = rng.Uint64(), way(rng.IntN(int(ways))), 1+rng.IntN(30)
			deaths[v.Way]++
			after := time.Duration(rng.IntN(150)) * time.Millisecond
			all.Go(func() { b.slay(v, after) })
		}
		all.Wait()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		b.residue()
		switch {
		case round == min(20, *rounds/2):
			heap = b.d.Heap()
		case round%100 == 99:
			t.Logf("%d deaths, %v: heap %d KiB, fenced %v", (round+1)*victims, time.Since(began), b.d.Heap()>>10, b.d.Metrics("mpool_credits_fenced_total"))
		}
	}
	b.remove(append(p.IDs, p.Log))
	if is := b.alone(was); !maps.Equal(is, was) {
		t.Errorf("the books were in the beginning\n%v\nand are\n%v", was, is)
	}
	if is := b.d.Heap(); is > heap+mostHeap {
		t.Errorf("the heap grew from %d to %d bytes", heap, is)
	}
	t.Logf("%d deaths in %v: by kill, stop, exit, close %v; heap %d KiB, then %d; %v", *rounds*victims, time.Since(began), deaths,
		heap>>10, b.d.Heap()>>10, b.d.Metrics("mpool_credits_fenced_total", "mpool_credit_messages_total"))
}

// alone ends the test's own session and returns what is counted when nobody is there,
// once it is as it was. Nil: whatever that is.
func (b *bench) alone(was map[string]string) map[string]string {
	b.t.Helper()
	if err := b.raw.Close(); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(daemon.Patience); ; time.Sleep(2 * time.Millisecond) { // polls; nothing depends on its length
		is := b.d.Metrics(counted...)
		if nobody := is["mpool_sessions"] == "0" && is["mpool_exit_watch_processes"] == "0"; nobody && (was == nil || maps.Equal(is, was)) || time.Now().After(end) {
			return is
		}
	}
}

// slay runs a process until it dies.
func (b *bench) slay(p plan, after time.Duration) {
	text, err := json.Marshal(p)
	if err != nil {
		b.t.Error(err)
		return
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envSocket+"="+b.d.Socket, envStorm+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Error(err)
		return
	}
	var said daemon.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.t.Error(err)
		return
	}
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		b.t.Errorf("a process does not begin: %v %s", err, said.String())
	}
	var killed atomic.Bool
	kill := func() { killed.Store(true); _ = cmd.Process.Kill() }
	switch p.Way { //nolint:exhaustive // the others are killed
	case byExit:
		over := time.AfterFunc(daemon.Patience, kill)
		_, _ = io.Copy(io.Discard, out) // until it has ended
		if over.Stop(); killed.Load() {
			b.t.Error("a process does not end by itself")
		}
	case byStop:
		time.Sleep(after)
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(after / 2) // what it has may be taken meanwhile
		kill()
	default:
		time.Sleep(after) // and it dies in the midst of what it does
		kill()
	}
	_ = cmd.Wait()
	if s := cmd.ProcessState; s.Exited() && s.ExitCode() != 0 {
		b.t.Errorf("a process that was to die by %v has failed: %s", p.Way, said.String())
	}
}

// remove deletes the objects that are there.
func (b *bench) remove(ids []layout.ObjectID) {
	b.t.Helper()
	for _, id := range ids {
		op := ioctl.OpMblockFind
		if id.Kind() == layout.KindMlog {
			op = ioctl.OpMlogFind
		}
		h, err := b.raw.Open(op, &ioctl.Find{Pool: b.pool, ID: id})
		if api.CodeOf(err) == api.ENOENT {
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		b.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	}
}
