package hostile

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

var (
	lasting = flag.Duration("hostile.time", 10*time.Second, "how long all attacks take together")
	seed    = flag.Uint64("hostile.seed", 0, "seed of what is sent; 0: from the clock")
	race    = flag.Bool("hostile.race", raceDetector, "build the daemon with the race detector")
	only    = flag.String("hostile.only", "", "the attacks to make, with commas between; all if empty")
	nice    = flag.Int("hostile.nice", 0, "by how much attackers yield the processors to others, up to 19")
)

// The environment of a child, which is another process of this binary.
const (
	envRole   = "MPOOL_HOSTILE_ROLE"
	envSocket = "MPOOL_HOSTILE_SOCKET"
	envArgs   = "MPOOL_HOSTILE_ARGS"
)

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "attacker":
		attackerMain()
		os.Exit(0)
	case "ringer":
		ringerMain()
		os.Exit(0)
	case "stranger":
		strangerMain()
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, *race, &mpoold))
}
