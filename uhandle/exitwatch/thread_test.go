package exitwatch

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// The thread that reads the records goes before others, nobody else does, and after the
// Source is closed it does not either.
//
// proves S34
func TestReaderGoesFirst(t *testing.T) {
	t.Run("open", func(t *testing.T) {
		usual, err := unix.SchedGetAttr(os.Getpid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if usual.Policy != unix.SCHED_NORMAL { // as who has started the test wants it
			want = 0
		}
		s := open(t, Options{})
		first := goingFirst(t)
		if s.Prompt() != (want == 1) || len(first) != want {
			t.Fatalf("policy %d, prompt %v; threads that go before others: %v, want %d", usual.Policy, s.Prompt(), first, want)
		}
		v := start(t, "wait")
		n := watchIt(t, s, v.p)
		v.signal(unix.SIGKILL)
		if d := n.death(); d.Cause != uhandle.CauseSignal {
			t.Errorf("told %+v", d)
		}
		if now := goingFirst(t); !slices.Equal(now, first) {
			t.Errorf("after a death, threads %v go before others; it was %v", now, first)
		}
	})
	if first := goingFirst(t); len(first) > 0 {
		t.Errorf("threads %v go before others after the end", first)
	}
}

// goingFirst returns the threads of this process that go before others.
func goingFirst(t *testing.T) (threads []int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := unix.SchedGetAttr(tid, 0); err == nil && a.Nice == firstNice { // else it has ended
			threads = append(threads, tid)
		}
	}
	return threads
}
