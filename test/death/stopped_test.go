package death

import (
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var stopFor = flag.Duration("death.stop", 3*time.Second, "how long clients are stopped")

// proves S32: clients that are stopped for long, whatever they are at, lose
// nothing: when they go on, all that they hold is as it was.
func TestStopped(t *testing.T) {
	k := newKill(t, "auto")
	var list []*victimPlan
	for s := range states {
		v := newVictimPlan(k.rng, k.root, len(states))
		v.args.state, v.args.way, v.args.number = state(s), resumed, int(unix.SIGKILL)
		v.atWork, v.stopped = true, *stopFor
		v.patience += *stopFor
		list = append(list, v)
	}
	k.carryOut(list, len(list), true)
	k.living.idle(func() { k.watch.compare(len(list)) })
	k.living.finish(t)
	t.Logf("%d clients were stopped for %v at %d things", len(list), *stopFor, len(states))
}
