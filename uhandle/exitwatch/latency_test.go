package exitwatch

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

func itoa(n int) string { return strconv.Itoa(n) }

// How long after SIGKILL a death is noticed, by the tracepoint and by the pidfd,
// of a small process and of one that has much memory. Nothing is judged by it.
func TestLatency(t *testing.T) {
	s := open(t, Options{})
	rounds, hog := 50, 64<<20
	if *deaths >= 100000 {
		rounds, hog = 1000, 1<<30
	}
	for _, c := range []struct {
		name   string
		rounds int
		how    []string
	}{
		{"small", rounds, []string{"wait"}},
		{fmt.Sprintf("%d MiB resident", hog>>20), rounds / 10, []string{"hog", itoa(hog)}},
	} {
		bpf, pidfd := make([]time.Duration, 0, c.rounds), make([]time.Duration, 0, c.rounds)
		for range c.rounds {
			v := start(t, c.how...)
			type moment struct {
				by string
				at time.Time
			}
			moments := make(chan moment, 2)
			var stops []func()
			for _, source := range []uhandle.Source{s, uhandle.Pidfd{}} {
				stop, err := source.Watch(v.p, func(uhandle.Death) { moments <- moment{source.Name(), time.Now()} })
				if err != nil {
					t.Fatal(err)
				}
				stops = append(stops, stop)
			}
			begun := time.Now()
			v.signal(unix.SIGKILL)
			for range 2 {
				m := soon(t, "the death is noticed", moments)
				if m.by == "bpf" {
					bpf = append(bpf, m.at.Sub(begun))
				} else {
					pidfd = append(pidfd, m.at.Sub(begun))
				}
			}
			for _, stop := range stops {
				stop()
			}
			v.wait()
			v.p.Close()
		}
		p := func(list []time.Duration, q int) time.Duration {
			slices.Sort(list)
			return list[min(len(list)*q/100, len(list)-1)].Round(time.Microsecond)
		}
		t.Logf("%s, %d deaths: bpf p50 %v p99 %v, pidfd p50 %v p99 %v", c.name, c.rounds,
			p(bpf, 50), p(bpf, 99), p(pidfd, 50), p(pidfd, 99))
	}
}
