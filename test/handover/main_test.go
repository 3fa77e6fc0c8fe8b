package handover

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	rounds = flag.Int("handover.rounds", 10, "how often a giver, a taker or both are killed")
	seed   = flag.Uint64("handover.seed", 0, "seed of what they do and when they die; 0: from the clock")
)

const poolName = "handover"

// The environment of a child, which is another process of this binary.
const (
	envRole   = "MPOOL_HANDOVER_ROLE"
	envSocket = "MPOOL_HANDOVER_SOCKET"
	envSeed   = "MPOOL_HANDOVER_SEED"
)

// roles are what a child may be.
var roles = map[string]func(*actor){"giver": (*actor).give, "taker": (*actor).take}

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		a := newActor()
		roles[role](a) // a role that is not there panics
		check(a.c.Close())
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, raceDetector, &mpoold))
}

// actor is a child at work. What it says goes through a pipe that outlives it, a
// line at once:
//
//	r 0    it is at work
//	g TAG  the object is granted                          (giver)
//	t TAG  it is about to accept it                       (taker)
//	T TAG  it was told that it is its own                 (taker)
//	c TAG  it is about to commit it     C TAG  it is told that it is committed
//	K TAG  it was the giver's still, and is aborted       (giver)
//	L TAG  it was not the giver's any more                (giver)
//	E TEXT something is wrong
type actor struct {
	ctx    context.Context
	c      *client.Conn
	p      api.Pool
	rng    *rand.Rand
	out    *os.File
	tokens *os.File // the giver writes them, the taker reads them
	over   atomic.Bool
}

func newActor() *actor {
	s, err := strconv.ParseUint(os.Getenv(envSeed), 10, 64)
	check(err)
	a := &actor{
		ctx: context.Background(), rng: rand.New(rand.NewPCG(s, 2)),
		out: os.NewFile(3, "report"), tokens: os.NewFile(4, "tokens"),
	}
	a.c, err = client.Dial(a.ctx, client.Options{Socket: os.Getenv(envSocket), Reconnect: -1})
	check(err)
	a.p, err = a.c.OpenPool(a.ctx, poolName)
	check(err)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what is waited for
		a.over.Store(true)
	}()
	a.tell("r", 0)
	return a
}

func (a *actor) tell(what string, tag uint64) {
	_, err := fmt.Fprintf(a.out, "%s %x\n", what, tag)
	check(err)
}

func (a *actor) blame(tag uint64, format string, args ...any) {
	_, err := fmt.Fprintf(a.out, "E %x: %s\n", tag, fmt.Sprintf(format, args...))
	check(err)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// part is what a giver (0) or a taker (1) writes into the object of a tag.
func part(tag uint64, n uint64) []byte {
	rng := rand.New(rand.NewPCG(tag, n))
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
