package powercut

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/loopdev"
)

var (
	cuts  = flag.Int("powercut.cuts", 12, "how often the power is cut at least")
	pools = flag.Int("powercut.pools", 2, "how many pools there are at the same time")
	seed  = flag.Uint64("powercut.seed", 0, "seed of contents, faults and cuts; 0: from the clock")
	race  = flag.Bool("powercut.race", false, "build the daemon with the race detector")
)

func TestMain(m *testing.M) {
	if number := os.Getenv(clientVariable); number != "" {
		play(number)
		return
	}
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	goleak.VerifyTestMain(m)
}

// rig is a daemon and its pools.
type rig struct {
	t     *testing.T
	bin   string
	rng   *rand.Rand
	d     *testdaemon.Daemon
	m     *client.Conn // for managing pools
	pools []*pool
}

func (r *rig) start() {
	r.t.Helper()
	r.d = testdaemon.Start(r.t, r.bin, testdaemon.Options{})
	m, err := client.Dial(context.Background(), client.Options{Socket: r.d.Socket, Reconnect: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	r.m = m
}

// each does something with all pools at the same time.
func (r *rig) each(f func(*pool) error) {
	r.t.Helper()
	var wg sync.WaitGroup
	for _, p := range r.pools {
		wg.Go(func() {
			if err := f(p); err != nil {
				r.t.Errorf("pool %s: %v", p.name, err)
			}
		})
	}
	wg.Wait()
	if r.t.Failed() {
		r.t.Fatalf("the daemon says:\n%s", r.d.Log())
	}
}

// The power goes at any moment, also of drives that fail in other ways, and
// with the daemon; it is cut in every way that the fault model knows. What was
// acknowledged is there, what was refused is not, the space adds up, and the
// offline checker finds nothing.
//
// proves S9 S12 S15 S21 S22 S26 S40
func TestPowerCuts(t *testing.T) {
	loopdev.RequireRoot(t)
	t.Logf("seed %d: go test ./test/powercut -powercut.seed=%d -powercut.cuts=%d -powercut.pools=%d", *seed, *seed, *cuts, *pools)
	bin, err := testdaemon.Build(t.TempDir(), *race)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := &rig{t: t, bin: bin, rng: rand.New(rand.NewPCG(*seed, 0))}
	for n := range *pools {
		r.pools = append(r.pools, newPool(t, n, *seed))
	}
	r.start()
	defer func() {
		if err := r.m.Close(); err != nil {
			t.Error(err)
		}
		r.d.Stop()
		for _, p := range r.pools {
			p.detach()
		}
	}()
	r.each(func(p *pool) error { return p.create(ctx, r.m) })
	total := tally{stories: make(map[string]int)}
	for done := 0; done < *cuts; done = total.cuts {
		if r.rng.IntN(8) == 0 {
			r.hostRound(ctx)
		} else {
			r.each(func(p *pool) error { return r.round(ctx, p) })
		}
		total = tally{stories: make(map[string]int)}
		for _, p := range r.pools {
			total.add(&p.tally)
		}
	}
	t.Logf("%d cuts, of %d volatile writes %d kept, %d torn, %d lost; the daemon was killed under %d pools; %d changes were acknowledged",
		total.cuts, total.volatile, total.kept, total.torn, total.lost, total.kills, total.acked)
	for _, s := range slices.Sorted(maps.Keys(total.stories)) {
		t.Logf("%6d %s", total.stories[s], s)
	}
	for _, p := range r.pools {
		if p.tally.cuts >= 20 && p.tally.acked == 0 {
			t.Errorf("pool %s: nothing was acknowledged before %d cuts", p.name, p.tally.cuts)
		}
	}
	if total.acked == 0 || total.volatile == 0 {
		t.Error("nothing was acknowledged, or nothing was volatile")
	}
}

// round cuts the power of one pool's drives; the daemon lives on.
func (r *rig) round(ctx context.Context, p *pool) error {
	story := stories[p.rng.IntN(len(stories))]
	p.tally.stories[story]++
	p.disturb(story)
	if err := p.work(r.d.Socket, p.vanish); err != nil {
		return fmt.Errorf("%s: %w", story, err)
	}
	p.heal()
	if err := r.deactivate(ctx, p.name); err != nil {
		return fmt.Errorf("%s: %w", story, err)
	}
	p.detach()
	p.cut()
	if err := r.recover(ctx, p); err != nil {
		return fmt.Errorf("%s: %w", story, err)
	}
	return nil
}

// deactivate ends a pool whose drives are gone. That says so; the pool is not
// active any more all the same.
func (r *rig) deactivate(ctx context.Context, name string) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := r.m.DeactivatePool(ctx, name)
		if errors.Is(err, api.EBUSY) && time.Now().Before(end) {
			continue // its clients' sessions are just ending
		}
		infos, perr := r.m.Pools(ctx)
		if perr != nil {
			return perr
		}
		for _, i := range infos {
			if i.Name == name {
				return fmt.Errorf("the pool stays active: %w", err)
			}
		}
		return nil
	}
}

// recover activates a pool and holds it against what was acknowledged.
func (r *rig) recover(ctx context.Context, p *pool) error {
	if err := p.offline(ctx); err != nil {
		return err
	}
	if _, err := r.m.ActivatePool(ctx, p.name, p.attach(), api.ActivateOptions{}); err != nil {
		return err
	}
	return p.verify(ctx, r.d.Socket, r.m)
}

// hostRound kills the daemon while it serves all pools; the drives of each may
// lose their power with it.
func (r *rig) hostRound(ctx context.Context) {
	r.t.Helper()
	var down sync.Once
	var mu sync.Mutex // of must
	must := make(map[*pool]bool)
	r.each(func(p *pool) error {
		story := stories[p.rng.IntN(len(stories))]
		p.tally.stories["daemon killed, "+story]++
		p.tally.kills++
		flush := p.disturb(story)
		mu.Lock()
		must[p] = flush
		mu.Unlock()
		return p.work(r.d.Socket, func(<-chan struct{}) {
			time.Sleep(time.Duration(p.rng.Int64N(int64(longestWork)))) // the moment of the kill; any will do
			down.Do(r.d.Kill)
		})
	})
	_ = r.m.Close() // its daemon is gone
	for _, p := range r.pools {
		p.heal()
		p.detach()
	}
	r.start()
	r.each(func(p *pool) error {
		if must[p] || p.rng.IntN(2) == 0 {
			p.cut()
		}
		return r.recover(ctx, p)
	})
}
