package kill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

var (
	inside = flag.Int("kill.inside", 1, "at how many moments of each operation the daemon is killed; 0: at each write, flush and discard")
	again  = flag.Int("kill.again", 1, "how often at each of these moments")
)

// afterwards is how many more operations are counted on, of what follows in the
// background when a scene is over.
const afterwards = 2

// config of the daemon: a start takes a tenth of a second less without eBPF.
const config = "[deaths]\nebpf = 'off'\n"

// theatre is where scenes are played.
type theatre struct {
	t        *testing.T
	bin, ctl string
	drives   []*faultfs.Drive
	rng      *rand.Rand
}

// The daemon, and mpoolctl inside a repair, are killed at each write, flush and
// discard of an operation, of which that one and those under way beside it have
// been done or not; and in every other case the power goes, too. The pool is then
// as before the step that was under way or as after it, whole, and all before it
// is there; the space adds up; the checker finds nothing, and a repair that was
// cut off ends when it is begun again.
//
// proves S2 S5 S8 S12 S15 S26 S36 S45
func TestKillInside(t *testing.T) {
	loopdev.RequireRoot(t)
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/kill -run TestKillInside -kill.seed=%d -kill.inside=%d -kill.again=%d", s, s, *inside, *again)
	th := &theatre{t: t, bin: build(t)}
	var err error
	if th.ctl, err = testdaemon.BuildCtl(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for i, d := range blank() {
		th.drives = append(th.drives, faultfs.New(t, d.Size(), faultfs.Options{Disk: d, Seed: s + uint64(i)}))
	}
	for i, sc := range scenes() {
		t.Run(sc.name, func(t *testing.T) {
			here := *th
			here.t, here.rng = t, rand.New(rand.NewPCG(s, uint64(i)))
			here.play(&sc)
		})
	}
}

// play plays a scene once to its end, and then kills inside it.
func (th *theatre) play(sc *scene) {
	th.t.Helper()
	f := &stock{}
	base := sc.prepare(th.t, f)
	states, total := th.rehearse(sc, base, f)
	if total == 0 {
		th.t.Fatal("it writes nothing")
	}
	moments := th.rng.Perm(total + afterwards)
	if *inside > 0 {
		moments = moments[:min(*inside, len(moments))]
	}
	slices.Sort(moments)
	kills, within := 0, 0
	for _, n := range moments {
		for range *again {
			th.t.Run(fmt.Sprint(n), func(t *testing.T) {
				here := *th
				here.t = t
				if here.kill(sc, base, f, states, n) {
					within++
				}
			})
			if th.t.Failed() {
				return
			}
			kills++
		}
	}
	th.t.Logf("%d kills at %d moments, %d inside; %d writes, flushes and discards in %d steps", kills, len(moments), within, total, len(sc.steps))
	if *inside == 0 && within == 0 {
		th.t.Error("none of the kills was inside")
	}
}

// mount puts copies of the disks into the drives.
func (th *theatre) mount(base media) media {
	th.t.Helper()
	disks := base.clone()
	for i, d := range th.drives {
		d.Replace(th.t, disks[i])
	}
	return disks
}

// begin brings an actor to where the scene begins. d is nil where no daemon plays.
func (th *theatre) begin(sc *scene, f *stock) (a *actor, d *testdaemon.Daemon) {
	th.t.Helper()
	ctx := context.Background()
	a = &actor{f: f, ctl: func(ctx context.Context, args ...string) *exec.Cmd { return exec.CommandContext(ctx, th.ctl, args...) }}
	for _, d := range th.drives {
		a.paths = append(a.paths, d.Path)
	}
	if sc.mends {
		return a, nil
	}
	d = testdaemon.Start(th.t, th.bin, testdaemon.Options{Config: config})
	var err error
	if a.c, err = client.Dial(ctx, client.Options{Socket: d.Socket, Reconnect: -1}); err != nil {
		th.t.Fatal(err)
	}
	if sc.active {
		_, err := a.c.ActivatePool(ctx, "kill", a.paths, api.ActivateOptions{})
		if err == nil {
			a.p, err = a.c.OpenPool(ctx, "kill")
		}
		if err != nil {
			th.t.Fatal(err)
		}
	}
	return a, d
}

// gone waits for the end of a daemon that was killed.
func (th *theatre) gone(a *actor, d *testdaemon.Daemon) {
	th.t.Helper()
	if d != nil {
		_ = a.c.Close() // its daemon is dead
		testdaemon.Eventually(th.t, "the daemon ends", func() bool { return !d.Running() })
	}
	th.freeze(nil)
}

// rehearse plays all of a scene, and returns the states between its steps and how
// many operations it does that change the drives.
func (th *theatre) rehearse(sc *scene, base media, f *stock) (states []string, total int) {
	th.t.Helper()
	ctx := context.Background()
	state := func(m media) string {
		s, err := m.clone().state("kill", "other")
		if err != nil {
			th.t.Fatalf("after %d steps: %v", len(states), err)
		}
		return s
	}
	states = append(states, state(base))
	disks := th.mount(base)
	a, d := th.begin(sc, f)
	freezer := faultfs.NewFreezer(math.MaxInt)
	th.freeze(freezer)
	for i, s := range sc.steps {
		if err := s.do(ctx, a); err != nil {
			th.t.Fatalf("step %d: %v", i, err)
		}
		total = freezer.Passed()
		states = append(states, state(disks))
		if same := states[i] == states[i+1]; same != s.same {
			th.t.Fatalf("step %d changes nothing: %v; it is to: %v\n%s", i, same, s.same, diff(states[i+1], states[i]))
		}
	}
	if sc.compacts {
		was, err := base.compactions()
		if err != nil {
			th.t.Fatal(err)
		}
		testdaemon.Eventually(th.t, "the metadata is compacted", func() bool {
			now, err := disks.clone().compactions()
			return err == nil && now != was
		})
	}
	if d != nil {
		d.Signal(syscall.SIGKILL)
	}
	th.gone(a, d)
	return states, total
}

func (th *theatre) freeze(f *faultfs.Freezer) {
	for _, d := range th.drives {
		d.Freeze(f)
	}
}

// kill plays a scene to an operation and kills there; not inside of it, if that does
// not come before the scene is over.
func (th *theatre) kill(sc *scene, base media, f *stock, states []string, n int) (within bool) {
	th.t.Helper()
	disks := th.mount(base)
	a, d := th.begin(sc, f)
	freezer := faultfs.NewFreezer(n)
	th.freeze(freezer)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var failed error
	done, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for _, s := range sc.steps {
			if failed = s.do(ctx, a); failed != nil {
				return
			}
			done++
		}
	}()
	select {
	case <-freezer.Frozen():
		within = true
	case <-ended:
		if failed != nil {
			th.t.Errorf("step %d of %d, before the kill: %v", done, len(sc.steps), failed)
		}
	}
	cancel() // kills mpoolctl
	if d != nil {
		d.Signal(syscall.SIGKILL)
	}
	fate := th.rng.IntN(3)                            // all is done, nothing is, some is
	dice := rand.New(rand.NewPCG(th.rng.Uint64(), 0)) // the freezer's own
	freezer.Thaw(func() bool { return fate == 0 || fate == 2 && dice.IntN(2) == 0 })
	<-ended
	th.gone(a, d)
	cut := th.rng.IntN(2) == 0
	if cut {
		for _, d := range disks {
			d.PowerCut(th.rng, sim.CutOptions{})
		}
	}
	if err := th.judge(sc, disks, states[done:min(done+2, len(states))]); err != nil {
		th.t.Errorf("killed at %d, in step %d of %d, fate %d, power cut %v: %v", n, done, len(sc.steps), fate, cut, err)
	}
	return within
}

// judge looks at what was left. allowed are the states before and after the step
// that was under way.
func (th *theatre) judge(sc *scene, disks media, allowed []string) error {
	ctx := context.Background()
	if sc.mends {
		r, err := check.Repair(ctx, disks.names(), disks.checkOptions())
		if err != nil || !r.OK {
			return fmt.Errorf("a second repair: %w, %v", err, r.Problems)
		}
		if r, err = check.Run(ctx, disks.names(), disks.checkOptions()); err != nil || len(r.Notes) > 0 {
			return fmt.Errorf("after a second repair: %w, %v", err, r.Notes)
		}
	}
	after := disks.clone()
	got, err := after.state("kill", "other")
	if errors.Is(err, api.ESTATE) && slices.Contains(allowed, noPool) {
		got, err = noPool, nil // it says what is left of which pool, and what to do
	}
	if err != nil {
		return err
	}
	if !slices.Contains(allowed, got) {
		return fmt.Errorf("it is neither as before nor as after the step; to before:\n%sto after:\n%s",
			diff(got, allowed[0]), diff(got, allowed[len(allowed)-1]))
	}
	if got == noPool {
		return createAnew(after)
	}
	if !sc.worn {
		if err := clean(disks); err != nil {
			return fmt.Errorf("before the activation: %w", err)
		}
	}
	return clean(after)
}

// clean says what the checker finds, as an error.
func clean(m media) error {
	r, err := check.Run(context.Background(), m.names(), m.checkOptions())
	if err == nil && !r.OK {
		err = fmt.Errorf("the checker finds %v", r.Problems)
	}
	return err
}

// createAnew makes a pool where one was not made, or was destroyed.
func createAnew(disks media) error {
	ctx := context.Background()
	o := api.CreateOptions{Staging: disks.names()[1:], Force: true}
	if _, err := mpool.Create(ctx, "kill", disks.names()[:1], o, disks.options()); err != nil {
		return fmt.Errorf("a pool cannot be made on what is left: %w", err)
	}
	return clean(disks)
}
