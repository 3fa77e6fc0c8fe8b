package death

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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
arena_default = 2097152
[engine]
sum_cache_bytes = 1048576
`

// kill is a test of many deaths: the daemon, its pool, who lives on.
type kill struct {
	t      *testing.T
	d      *daemon.Daemon
	watch  *watch
	p      api.Pool // of the test's own connection
	living *living
	rng    *rand.Rand
	serial uint32

	mblock, log layout.ObjectID // for all to read
	ways        [numWays]int
	atWork      int // victims that were at work when they died
	objects     int // that were looked at
}

// proves S31 S32 S33: thousands of clients that end in any way, at any moment
// of any call, up to a hundred of them at one time: nothing of theirs is left
// in the daemon, nobody else notices, and what they were promised is kept.
func TestKills(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/death -run TestKills -death.seed=%d -death.kills=%d", s, s, *kills)
	k := &kill{t: t, rng: rand.New(rand.NewPCG(s, 1))}
	drive := daemon.Drive(t, driveBytes)
	k.d = daemon.Start(t, mpoold, daemon.Options{Config: config, Profiles: true})
	c, p := k.d.Pool(poolName, drive, api.CreateOptions{})
	k.p = p
	k.mblock, k.log = putShared(t, p)
	k.living = newLiving(t, k.d)
	k.living.idle(func() { k.watch = newWatch(t, k.d, c, p) })

	k.batch(20, 10) // warm-up: threads, pools of buffers, the heap's size
	k.living.idle(func() { k.watch.compare(0) })
	began := time.Now()
	for done := 0; done < *kills && !t.Failed(); {
		at := []int{1, 2, 4, 8, 16, 32, 64, 100}[k.rng.IntN(8)]
		if done == 0 {
			at = 100
		}
		at = min(at, *most)
		n := min(max(2*at, 16), *kills-done)
		k.batch(n, at)
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
	t.Logf("%d deaths in %v, of clients at work %d; ways %v; %d objects of the dead looked at",
		*kills, time.Since(began).Round(time.Second), k.atWork, k.waysTaken(), k.objects)
}

func (k *kill) waysTaken() map[string]int {
	m := map[string]int{}
	for w, n := range k.ways {
		m[way(w).String()] = n
	}
	return m
}

// batch makes n victims, so many at a time, waits for their deaths, and looks at
// what they leave.
func (k *kill) batch(n, at int) {
	k.t.Helper()
	ledgers := make(map[uint32]*ledger, n)
	plans := make(map[int32]*victimPlan, n) // of those at work
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, at)
	for range n {
		k.serial++
		v := newVictimPlan(k)
		k.ways[v.way]++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			l, err := v.run(k.d.Socket)
			mu.Lock()
			defer mu.Unlock()
			ledgers[v.args.serial] = l
			if l.pid != 0 {
				plans[l.pid] = v
			}
			if err != nil {
				k.t.Errorf("victim %d: %v", v.args.serial, err)
			}
		})
	}
	wg.Wait()
	for serial, l := range ledgers {
		for _, m := range l.mistakes {
			k.t.Errorf("victim %d: %s", serial, m)
		}
	}
	k.atWork += len(plans)
	if k.t.Failed() {
		return
	}
	k.living.idle(k.watch.settle)
	k.watch.events.take(k.t, k.watch.c, plans)
	k.audit(ledgers)
}

// victimPlan is one victim's life.
type victimPlan struct {
	args   victimArgs
	way    way
	atWork bool          // its time begins when it is at work, not when it is born
	life   time.Duration // until the test ends it
}

func newVictimPlan(k *kill) *victimPlan {
	v := &victimPlan{way: way(k.rng.IntN(int(numWays))), atWork: k.rng.IntN(6) > 0}
	if k.rng.IntN(3) == 0 {
		v.way = bySIGKILL
	}
	life := time.Duration(k.rng.IntN(60_000)) * time.Microsecond
	if k.rng.IntN(8) == 0 {
		life *= 6
	}
	v.args = victimArgs{
		serial: k.serial, seed: k.rng.Uint64(), workers: 1 + k.rng.IntN(4), mblock: k.mblock, log: k.log,
	}
	if v.way.signal() != 0 {
		v.life = life
	} else {
		v.args.way, v.args.life = v.way, life+1
	}
	return v
}

// run is the victim's life. It returns when it is dead and everything that it
// told is read.
func (v *victimPlan) run(socket string) (*ledger, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envRole+"=victim", envSocket+"="+socket, envArgs+"="+v.args.String(), "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{w}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // it ends with the test
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	l := newLedger()
	told := make(chan struct{})
	go func() {
		defer close(told)
		l.read(r)
	}()
	if s := v.way.signal(); s != 0 {
		if v.atWork {
			select {
			case <-l.ready:
			case <-told:
			case <-time.After(daemon.Patience):
			}
		}
		time.Sleep(v.life)        // the moment of its death; any will do
		_ = cmd.Process.Signal(s) // its end says whether it was
	}
	select {
	case <-told:
	case <-time.After(daemon.Patience):
		_ = cmd.Process.Kill() // it may end just now
		err = fmt.Errorf("by %v: it does not end", v.way)
	}
	<-told
	_ = stdin.Close() // the pipe of a dead process
	if werr := v.way.check(cmd.Wait(), l.pid != 0); err == nil && werr != nil {
		err = fmt.Errorf("%w\n%s", werr, stderr.Bytes())
	}
	return l, err
}

// audit compares what the dead left in the pool with what they told, and
// removes it.
func (k *kill) audit(ledgers map[uint32]*ledger) {
	k.t.Helper()
	ctx := context.Background()
	there := make(map[uint32]map[tag]bool, len(ledgers))
	for serial := range ledgers {
		there[serial] = map[tag]bool{}
	}
	var found []api.ObjectInfo
	for info, err := range k.p.Objects(ctx, api.Filter{}) {
		if err != nil {
			k.t.Fatal(err)
		}
		t := tag(info.Tag)
		switch tags := there[t.serial()]; {
		case t.serial() == 0:
			continue
		case tags == nil:
			k.t.Errorf("object %v of tag %x is nobody's", info.ID, t)
		case info.Partner != 0 && info.Partner.Counter() < info.ID.Counter():
			continue // the second log of a container
		default:
			tags[t] = true
		}
		found = append(found, info)
	}
	for serial, l := range ledgers {
		if err := l.judge(there[serial]); err != nil {
			k.t.Errorf("victim %d: %v", serial, err)
		}
	}
	k.roots(ctx, ledgers)
	k.objects += len(found)
	work := make(chan api.ObjectInfo)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for info := range work {
				l := ledgers[tag(info.Tag).serial()]
				if err := bury(ctx, k.p, info, l); err != nil {
					k.t.Errorf("object %v of tag %x: %v", info.ID, info.Tag, err)
				}
			}
		})
	}
	for _, info := range found {
		work <- info
	}
	close(work)
	wg.Wait()
}

// roots looks at the roots of the dead and removes them.
func (k *kill) roots(ctx context.Context, ledgers map[uint32]*ledger) {
	k.t.Helper()
	roots, err := k.p.Roots(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	set := map[string]bool{}
	var unset []api.Root
	for _, r := range roots {
		set[r.Name] = true
		unset = append(unset, api.Root{Name: r.Name})
	}
	for serial, l := range ledgers {
		begun, done := false, false
		for t, n := range l.begun {
			begun = begun || n > 1
			done = done || n > 1 && l.done[t]
		}
		if has := set[rootName(serial)]; has && !begun || !has && done {
			k.t.Errorf("victim %d: its root is there: %v; commits that set it were sent: %v, acknowledged: %v", serial, has, begun, done)
		}
	}
	if len(unset) == 0 {
		return
	}
	if err := k.p.SetRoots(ctx, unset); err != nil {
		k.t.Fatal(err)
	}
}

// bury compares an object of a dead client's with what it has to be, and
// deletes it: that succeeds only if nobody has a reference any more.
func bury(ctx context.Context, p api.Pool, info api.ObjectInfo, l *ledger) error {
	t := tag(info.Tag)
	switch {
	case info.Partner != 0:
		return buryContainer(ctx, p, info, l)
	case info.Kind == layout.KindMblock:
		b, err := p.Mblock(ctx, info.ID)
		if err != nil {
			return err
		}
		if err := t.matches(ctx, b); err != nil {
			return err
		}
		return b.Delete(ctx)
	}
	m, err := p.Mlog(ctx, info.ID)
	if err != nil {
		return err
	}
	r, err := m.OpenRead(ctx)
	if err != nil {
		return err
	}
	if err := l.counted(t, r); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	return m.Delete(ctx)
}

func buryContainer(ctx context.Context, p api.Pool, info api.ObjectInfo, l *ledger) error {
	m, err := p.OpenMDC(ctx, info.ID)
	if err != nil {
		return err
	}
	r, err := m.OpenRead(ctx)
	if err != nil {
		return err
	}
	if err := l.counted(tag(info.Tag), r); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	return p.DeleteMDC(ctx, info.ID)
}

// counted says whether a log has the records that its client was told of, and
// at most those more that were under way.
func (l *ledger) counted(t tag, r api.LogReader) error {
	n, err := t.count(context.Background(), r)
	if acked := l.records[t]; err == nil && (n < acked || n > max(acked+1, l.asked[t])) {
		err = fmt.Errorf("%d records; %d were acknowledged", n, acked)
	}
	return err
}
