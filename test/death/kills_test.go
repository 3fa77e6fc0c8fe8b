package death

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	poolName   = "death"
	driveBytes = 4 << 30 // of a file with holes
)

// config gives every client little memory, so that many fit, and the pool a small
// cache, so that it is full soon: what still grows then is a leak.
const config = `
log_level = "warn"
[limits]
sessions = 4096
arena_default = 1048576
arena_total = 4294967296
[engine]
sum_cache_bytes = 1048576
[deaths]
ebpf = "%s"
`

// kill is a test of many deaths: the daemon, its pool, who lives on.
type kill struct {
	t      *testing.T
	d      *daemon.Daemon
	drive  string
	watch  *watch
	p      api.Pool // of the test's own connection
	living *living
	seed   uint64
	rng    *rand.Rand
	serial uint32
	root   bool
	before func() // those die who are to die together
	after  func() // a batch has died

	grants      [2]*os.File     // a pipe for victims
	mblock, log layout.ObjectID // for all to read
	counts      [numWays][len(states)]int
	atWork      int // victims that were at work when they died
	objects     int // that were looked at
}

// proves S31 S32 S33 S34: thousands of clients that end in any way, at anything,
// at any moment of any call, up to a thousand of them at one time: nothing of
// theirs is left in the daemon, nobody else notices, and what they were promised
// is kept.
func TestKills(t *testing.T) { killMany(t, "auto", *kills) }

// proves S33 S34: the same where the daemon has but the pidfds and the sockets.
func TestKillsWithoutBPF(t *testing.T) { killMany(t, "off", *kills/4) }

func killMany(t *testing.T, ebpf string, kills int) {
	t.Helper()
	k := newKill(t, ebpf)
	t.Logf("go test ./test/death -run '%s$' -death.seed=%d -death.kills=%d -death.clients=%d", t.Name(), k.seed, kills, *most)
	k.batch(40, 20, false) // warm-up: threads, pools of buffers, the heap's size
	k.living.idle(func() { k.watch.compare(0) })
	began := time.Now()
	for done := 0; done < kills && !t.Failed(); {
		at := []int{1, 2, 4, 8, 16, 32, 64, 100, 100, 300, 1000}[k.rng.IntN(11)]
		at = min(at, *most, kills)
		n, together := min(max(2*at, 64), kills-done), k.rng.IntN(2) == 0
		if together || n < at {
			at = min(at, n)
			n = at
			together = true
		}
		k.batch(n, at, together)
		done += n
		if t.Failed() {
			return
		}
		k.living.idle(func() { k.watch.compare(done) })
	}
	k.watch.finish()
	e := &k.watch.events
	t.Logf("%d events; causes %v; of processes that ended not known %d, taken for closed connections %d; noticed by %v; at most %v to release",
		len(e.sessions), e.causes, e.inexact, e.mistaken, e.by, e.longest)
	k.living.finish(t)
	if !t.Failed() && (k.atWork == 0 || k.objects == 0) {
		t.Error("nobody was at work, or the dead have left nothing")
	}
	t.Logf("%d deaths in %v, of clients at work %d; %d objects of the dead looked at\n%s",
		kills, time.Since(began).Round(time.Second), k.atWork, k.objects, k.table())
}

func newKill(t *testing.T, ebpf string) *kill {
	t.Helper()
	k := &kill{t: t, seed: *seed, root: os.Geteuid() == 0, before: func() {}, after: func() {}}
	if k.seed == 0 {
		k.seed = uint64(time.Now().UnixNano())
	}
	k.rng = rand.New(rand.NewPCG(k.seed, 1))
	k.drive = daemon.Drive(t, driveBytes)
	k.d = daemon.Start(t, mpoold, daemon.Options{Config: fmt.Sprintf(config, ebpf), Profiles: true})
	c, p := k.d.Pool(poolName, k.drive, api.CreateOptions{Mode: 0o666})
	k.p = p
	k.mblock, k.log = putShared(t, p)
	k.living = newLiving(t, k.d)
	k.living.idle(func() { k.watch = newWatch(t, k.d, c, p) })
	var err error
	if k.grants, err = grantPipe(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(k.grants[0].Close(), k.grants[1].Close()); err != nil {
			t.Error(err)
		}
	})
	return k
}

// table says how many died in which way and at what.
func (k *kill) table() string {
	var b strings.Builder
	byState := [len(states)]int{}
	for w, row := range k.counts {
		sum, most, least := 0, 0, row[0]
		for s, n := range row {
			byState[s] += n
			sum, most, least = sum+n, max(most, n), min(least, n)
		}
		fmt.Fprintf(&b, "%8d %v (%d to %d for each state)\n", sum, way(w), least, most)
	}
	for s, n := range byState {
		fmt.Fprintf(&b, "%8d at %v\n", n, state(s))
	}
	return b.String()
}

// startingAtOnce is how many victims are started at one time.
const startingAtOnce = 16

// batch makes n victims, so many at a time, waits for their deaths, and looks at
// what they leave. Together: they all die at one moment.
func (k *kill) batch(n, at int, together bool) {
	k.t.Helper()
	giving := at > 1 && at <= crowd && k.rng.IntN(6) == 0
	list := make([]*victimPlan, n)
	for i := range list {
		list[i] = newVictimPlan(k.rng, k.root, at)
		if giving {
			list[i].args.state = granting()
		}
	}
	k.carryOut(list, at, together)
}

// carryOut is batch for what is planned.
func (k *kill) carryOut(list []*victimPlan, at int, together bool) {
	k.t.Helper()
	k.watch.most = max(k.watch.most, at)
	ledgers, plans := k.end(list, at, together)
	if !k.t.Failed() {
		k.living.idle(k.watch.settle)
		k.watch.events.take(k.t, k.watch.c, plans, ledgers)
	}
	for _, v := range list {
		if err := v.disinherit(); err != nil {
			k.t.Errorf("victim %d: %v", v.args.serial, err)
		}
	}
	if !k.t.Failed() {
		k.audit(ledgers)
	}
}

// end has victims live and die. It returns their ledgers by their serials, and
// their plans by their numbers, but for those that have the same.
func (k *kill) end(list []*victimPlan, at int, together bool) (ledgers map[uint32]*ledger, plans map[int32]*victimPlan) {
	k.t.Helper()
	ledgers = make(map[uint32]*ledger, len(list))
	plans = make(map[int32]*victimPlan, len(list))
	again := map[int32]bool{} // numbers that more than one process had
	var mu sync.Mutex
	var wg, allBorn sync.WaitGroup
	slots, starting := make(chan struct{}, at), make(chan struct{}, startingAtOnce)
	var die chan struct{}
	if together {
		die = make(chan struct{})
	}
	for _, v := range list {
		k.serial++
		v.args.serial, v.args.mblock, v.args.log = k.serial, k.mblock, k.log
		v.grants = k.grants
		k.counts[v.args.way][v.args.state]++
		slots <- struct{}{}
		starting <- struct{}{}
		allBorn.Add(1)
		born := func() {
			<-starting
			allBorn.Done()
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l, err := v.run(k.d.Socket, born, die)
			mu.Lock()
			defer mu.Unlock()
			ledgers[v.args.serial] = l
			if l.pid == 0 && v.cmd != nil && v.cmd.Process != nil {
				l.pid = int32(v.cmd.Process.Pid) // it was not at work
			}
			if plans[l.pid] != nil {
				again[l.pid] = true
			}
			plans[l.pid] = v
			if l.dialed > 0 {
				k.atWork++
			}
			if err != nil {
				k.t.Errorf("victim %d: %v", v.args.serial, err)
			}
		})
	}
	if together {
		allBorn.Wait()
		k.before()
		close(die)
	}
	wg.Wait()
	k.after()
	for pid := range again {
		delete(plans, pid) // whose end it was that an event tells is not known
	}
	for serial, l := range ledgers {
		for _, m := range l.mistakes {
			k.t.Errorf("victim %d, %s: %s", serial, l.plan, m)
		}
	}
	if err := pass(ledgers); err != nil {
		k.t.Error(err)
	}
	return ledgers, plans
}
