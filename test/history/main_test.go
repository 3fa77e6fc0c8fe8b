package history

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

var (
	runFor = flag.Duration("history.for", 0, "how long histories are made; 0: a few rounds")
	steps  = flag.Int("history.steps", 24, "calls of each worker in a round, about")
	seed   = flag.Uint64("history.seed", 0, "seed of what is called and of the moments of kills; 0: from the clock")
)

const poolName = "history"

// The environment of a child, which is another process of this binary.
const (
	envProcess = "MPOOL_HISTORY_PROCESS"
	envSocket  = "MPOOL_HISTORY_SOCKET"
)

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(envProcess)); err == nil {
		if err := childMain(n, os.Getenv(envSocket)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(daemon.Main(m, false, &mpoold))
}
