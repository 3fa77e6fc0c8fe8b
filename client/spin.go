package client

import (
	"runtime"
	"time"

	"github.com/mpool-go/mpool/ioctl/ring"
)

// spinning decides whether somebody looks at the ring for a moment before it
// sleeps: while very little is under way, there are CPUs to spare, and it has
// been of use lately.
type spinning struct {
	able  bool
	worth int // it is done while above 0
	rest  int // sleeps until it is tried again
}

const (
	spinFew   = 2 // requests under way at most
	spinCPUs  = 3 // at least
	spinFor   = 20 * time.Microsecond
	spinLooks = 64 // at the ring between looks at the clock
	spinWorth = 8  // at most
	spinRest  = 256
)

func (p *spinning) init() {
	p.able = runtime.NumCPU() >= spinCPUs && runtime.GOMAXPROCS(0) >= spinCPUs
	p.worth = spinWorth
}

// spin spins if it may, and says whether there is an answer. Who calls it has
// very little under way, and would sleep.
func (p *spinning) spin(end *ring.Client) bool {
	if !p.able {
		return false
	}
	if p.worth <= 0 {
		if p.rest--; p.rest > 0 {
			return false
		}
		p.worth = 1
	}
	for until := time.Now().Add(spinFor); ; { //nolint:forbidigo // how long a CPU is kept busy is a matter of real time
		for range spinLooks {
			if end.Ready() {
				p.worth = min(p.worth+1, spinWorth)
				return true
			}
		}
		if time.Now().After(until) { //nolint:forbidigo // the same
			break
		}
	}
	if p.worth -= 2; p.worth <= 0 {
		p.rest = spinRest
	}
	return false
}
