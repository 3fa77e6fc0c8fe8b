package death

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves S33 S36: the daemon is killed amid the deaths of its clients. What they
// were promised is there when the next one has the pool, and nothing else.
func TestDaemonDiesAmidDeaths(t *testing.T) {
	k := newKill(t, "auto")
	k.living.end()
	var list []*victimPlan
	for range 2 {
		for s := range states {
			switch states[s].name {
			case "uncommitted mblock", "written mblock", "committed mblock", "uncommitted log",
				"mid-alloc", "mid-write", "mid-commit", "mid-commit of many", "mid-grant": // whose promises are all of what is durable
			default:
				continue
			}
			v := newVictimPlan(k.rng, k.root, 1)
			v.args.state, v.args.way, v.args.number = state(s), bySignal, int(unix.SIGKILL)
			v.args.orphan, v.atWork = true, true
			list = append(list, v)
		}
	}
	killed := make(chan struct{})
	k.before = func() {
		after := time.Duration(k.rng.IntN(5_000)) * time.Microsecond // any will do
		go func() {
			defer close(killed)
			time.Sleep(after)
			k.d.Kill()
		}()
	}
	ledgers, _ := k.end(list, len(list), true)
	<-killed

	d := daemon.Start(t, mpoold, daemon.Options{Config: fmt.Sprintf(config, "auto")})
	ctx := context.Background()
	c := d.Dial()
	if _, err := c.ActivatePool(ctx, poolName, []string{k.drive}, api.ActivateOptions{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.p, err = c.OpenPool(ctx, poolName); err != nil {
		t.Fatal(err)
	}
	k.audit(ledgers)
	var s api.Space
	daemon.Eventually(t, "what was freed is free", func() bool {
		info, err := k.p.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s = info.Space
		return s.Draining == 0
	})
	if s.Uncommitted != 0 || s.Free+s.Live+s.Uncommitted+s.Draining+s.Spare+s.Overhead+s.Remainder != s.Total {
		t.Errorf("space: %+v", s)
	}
	t.Logf("%d clients and their daemon died; %d objects were looked at", len(list), k.objects)
}
