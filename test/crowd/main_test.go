package crowd

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/daemon"
)

var (
	sessions  = flag.Int("crowd.sessions", 2000, "sessions of all members together; each takes two descriptors of the daemon's")
	processes = flag.Int("crowd.processes", 20, "processes that they are in")
	race      = flag.Bool("crowd.race", raceDetector, "build the daemon with the race detector")
)

// The environment of a child, which is another process of this binary.
const (
	envRole = "MPOOL_CROWD_ROLE"
	envArgs = "MPOOL_CROWD_ARGS"
)

var mpoold, mpoolctl string // binaries, built by TestMain

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case roleMember:
		memberMain()
		os.Exit(0)
	case roleChurn:
		churnMain()
		os.Exit(0)
	}
	flag.Parse()
	if err := raiseDescriptors(2**sessions + 350); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

// raiseDescriptors lets this process and those that it starts have so many
// descriptors, also above the hard limit, which takes CAP_SYS_RESOURCE.
func raiseDescriptors(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= uint64(n) {
		return nil
	}
	limit = unix.Rlimit{Cur: uint64(n), Max: max(limit.Max, uint64(n))}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d sessions take %d descriptors: %w", *sessions, n, err)
	}
	return nil
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "crowd")
	if err == nil {
		defer os.RemoveAll(dir)
		mpoolctl, err = daemon.BuildCtl(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return daemon.Main(m, *race, &mpoold)
}
