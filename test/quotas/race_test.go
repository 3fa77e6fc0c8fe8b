package quotas

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	rounds  = flag.Int("quotas.rounds", 2, "how often the claimants race")
	clients = flag.Int("quotas.clients", 4, "how many race")
	seed    = flag.Uint64("quotas.seed", 0, "seed of what they do and when they die; 0: from the clock")
)

const (
	poolName = "quotas"
	owner    = "team/project"
	class    = "mpool.bytes.capacity"
	zone     = 64 << 10
	limit    = 100 * zone

	envSocket = "MPOOL_QUOTAS_SOCKET"
	envSeed   = "MPOOL_QUOTAS_SEED"
)

var (
	mpoold string // the daemon's binary, built by TestMain
	ctx    = context.Background()
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(envSocket); socket != "" {
		if err := claimant(socket); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, raceDetector, &mpoold))
}

// claimant takes what it can get, in every way, and gives some of it back.
func claimant(socket string) error {
	n, err := strconv.ParseUint(os.Getenv(envSeed), 10, 64)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(n, 1))
	c, err := client.Dial(ctx, client.Options{Socket: socket})
	if err != nil {
		return nil // the daemon is gone
	}
	defer c.Close()
	p, err := c.OpenPool(ctx, poolName)
	if err != nil {
		return nil // as above
	}
	index, err := ownerIndex(p)
	if err != nil {
		return nil // as above
	}
	for range 60 {
		err := step(p, rng, api.AllocOptions{Owner: index, Capacity: rng.Int64N(3 * zone)})
		code := api.CodeOf(err)
		if slices.Contains([]api.Code{api.ECONNRESET, api.EUNKNOWN, api.EBADF, api.ETIMEDOUT}, code) {
			return nil // the daemon is gone
		}
		if !slices.Contains([]api.Code{0, api.EDQUOT, api.ENOENT, api.EBUSY}, code) {
			return fmt.Errorf("a claimant of seed %d: %w", n, err)
		}
	}
	return nil
}

func ownerIndex(p api.Pool) (uint32, error) {
	list, err := p.Owners(ctx)
	for _, o := range list {
		if o.Name == "project" {
			return o.Index, nil
		}
	}
	return 0, err
}

// step allocates, commits, aborts or deletes.
func step(p api.Pool, rng *rand.Rand, o api.AllocOptions) error {
	data := make([]byte, min(o.Capacity, 5000))
	switch rng.IntN(7) {
	case 0, 1:
		m, err := p.PutMblock(ctx, o, data)
		if err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			return m.Delete(ctx)
		}
		return m.Put()
	case 2, 3:
		m, err := p.AllocMblock(ctx, o)
		if err != nil {
			return err
		}
		if _, err := m.Write(ctx, data); err != nil {
			return errors.Join(err, m.Abort(ctx))
		}
		switch rng.IntN(3) {
		case 0:
			return m.Abort(ctx)
		case 1:
			return nil // it is left uncommitted
		}
		return errors.Join(m.Commit(ctx), m.Put())
	case 4:
		o.Capacity = max(o.Capacity, 1)
		l, err := p.AllocMlog(ctx, o)
		if err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			return l.Abort(ctx)
		}
		return errors.Join(l.Commit(ctx), l.Delete(ctx))
	case 5:
		o.Capacity = max(o.Capacity/2, 1)
		id, err := p.CreateMDC(ctx, o)
		if err != nil {
			return err
		}
		return p.DeleteMDC(ctx, id)
	}
	for info, err := range p.Objects(ctx, api.Filter{Owner: &o.Owner, State: api.StateCommitted}) {
		if err != nil {
			return err
		}
		if info.Partner != 0 || rng.IntN(4) > 0 {
			continue
		}
		return remove(p, &info)
	}
	return nil
}

func remove(p api.Pool, info *api.ObjectInfo) error {
	if info.Partner != 0 {
		return p.DeleteMDC(ctx, min(info.ID, info.Partner))
	}
	var o api.Object
	var err error
	if info.Kind.String() == "mblock" {
		o, err = p.Mblock(ctx, info.ID)
	} else {
		o, err = p.Mlog(ctx, info.ID)
	}
	if err != nil {
		return err
	}
	if err = o.Delete(ctx); err != nil {
		return errors.Join(err, o.Put())
	}
	return nil
}

// race is the test's state.
type race struct {
	t     *testing.T
	d     *daemon.Daemon
	drive string
	c     *client.Conn
	p     api.Pool
	rng   *rand.Rand
}

func (r *race) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.d.Log())
	}
}

func (r *race) open() {
	r.t.Helper()
	r.c = r.d.Dial()
	p, err := r.c.OpenPool(ctx, poolName)
	r.must(err)
	r.p = p
}

// usage is what the owner has of the class.
func usage(p api.Pool) (api.QuotaUsage, error) {
	list, err := p.(api.Quotas).QuotaUsage(ctx, owner)
	for _, u := range list {
		if u.Class == class {
			return u, err
		}
	}
	return api.QuotaUsage{}, errors.Join(err, errors.New("no usage"))
}

// proves G23, G28
//
// Processes race for the last 100 zones of an owner, by every way to allocate; they are
// killed, and now and then the daemon is. Whoever looks never sees more than the limit.
// After each round usage is the sum over the objects, what is left fits, and not a byte
// more does.
func TestRaceForTheLastZones(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-quotas.seed=%d", n)
	r := &race{t: t, rng: rand.New(rand.NewPCG(n, 0)), drive: filepath.Join(t.TempDir(), "drive")}
	r.must2(os.WriteFile(r.drive, nil, 0o600))
	r.must2(os.Truncate(r.drive, 256<<20))
	r.d = daemon.Start(t, mpoold, daemon.Options{})
	_, _ = r.d.Pool(poolName, r.drive, api.CreateOptions{})
	r.open()
	q := r.p.(api.Quotas)
	_, err := q.AddQuotaOwner(ctx, "project", "team")
	r.must(err)
	r.must(q.SetQuotaLimit(ctx, api.QuotaLimit{Owner: "team", Class: class, Limit: limit}))
	for i := range *rounds {
		r.round(i)
	}
}

func (r *race) must2(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *race) round(n int) {
	t := r.t
	t.Helper()
	killDaemon := n%4 == 1
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := r.p; !stop.Load(); {
			u, err := usage(p)
			if err != nil {
				return // the daemon is gone
			}
			if u.Held+u.Reserved > limit || u.Held < 0 || u.Reserved < 0 {
				t.Errorf("round %d: %d and %d of %d", n, u.Held, u.Reserved, limit)
			}
		}
	})
	cmds := make([]*exec.Cmd, *clients)
	outs := make([]daemon.Buffer, *clients)
	for i := range cmds {
		cmds[i] = exec.Command(os.Args[0])
		cmds[i].Env = append(os.Environ(), envSocket+"="+r.d.Socket, fmt.Sprintf("%s=%d", envSeed, r.rng.Uint64()))
		cmds[i].Stdout = &outs[i]
		r.must(cmds[i].Start())
	}
	for i := range cmds {
		if i%2 == 0 { // half of them are killed, in the midst of it
			time.Sleep(time.Duration(r.rng.IntN(20)) * time.Millisecond) // when does not decide
			_ = cmds[i].Process.Kill()
		}
	}
	if killDaemon {
		r.d.Kill()
	}
	for i, cmd := range cmds {
		_ = cmd.Wait()
		if s := outs[i].String(); s != "" {
			t.Errorf("round %d: %s", n, s)
		}
	}
	stop.Store(true)
	wg.Wait()
	if killDaemon {
		_ = r.c.Close()
		r.d = daemon.Start(t, mpoold, daemon.Options{Args: []string{"--activate", poolName + "@" + r.drive}})
		r.open()
	}
	r.settle(n)
}

// settle looks at the books when all claimants are gone.
func (r *race) settle(n int) {
	t := r.t
	t.Helper()
	daemon.Eventually(t, "the dead to hold nothing uncommitted", func() bool {
		u, err := usage(r.p)
		return err == nil && u.Reserved == 0
	})
	index, err := ownerIndex(r.p)
	r.must(err)
	sum := func() (bytes int64, all []api.ObjectInfo) {
		for info, err := range r.p.Objects(ctx, api.Filter{Owner: &index}) {
			r.must(err)
			bytes += info.Used
			all = append(all, info)
		}
		return bytes, all
	}
	bytes, _ := sum()
	u, err := usage(r.p)
	r.must(err)
	if u.Held != bytes || bytes > limit {
		t.Fatalf("round %d: %d are held, the objects have %d, the limit is %d", n, u.Held, bytes, limit)
	}
	// What fits is not refused, to the last zone.
	o := api.AllocOptions{Owner: index, Capacity: 1}
	for ; bytes < limit; bytes += zone {
		m, err := r.p.AllocMblock(ctx, o)
		r.must(err)
		if r.rng.IntN(2) == 0 {
			r.must(m.Commit(ctx))
			r.must(m.Put())
		} else {
			defer m.Abort(ctx)
		}
	}
	if _, err := r.p.AllocMblock(ctx, o); !errors.Is(err, api.EDQUOT) {
		t.Errorf("round %d: one more than the limit: %v", n, err)
	}
	_, all := sum()
	for _, info := range all {
		if info.State == api.StateCommitted && r.rng.IntN(5) > 0 {
			if err := remove(r.p, &info); err != nil && !errors.Is(err, api.ENOENT) {
				r.must(err)
			}
		}
	}
}
