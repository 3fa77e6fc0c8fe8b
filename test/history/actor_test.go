package history

import (
	"bufio"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// Who works: every connection has a worker of roots, one of logs and one of objects,
// the first one of a process another one of objects.
const (
	processes = 3
	connsEach = 2
	conns     = processes * connsEach
)

const objectsPerRound = 3

// round is what children are told to do.
type round struct {
	Round   int
	Seed    uint64
	Steps   int      // calls of each worker, about
	Objects uint64   // the first of its ids' counters
	Batches uint64   // the same, of those that are committed together
	Logs    []uint64 // ids
	Values  []uint64 // counters of objects that roots may name
}

// actor is one connection at work on a round.
type actor struct {
	*recorder
	round
	pool   api.Pool
	conn   int // which of all
	worker int

	mu   *sync.Mutex
	last map[uint64]uint64 // how many records its process has seen of a log
}

// call is recorder.call of the actor's.
func (a *actor) call(c *call, do func(c *call) error) error {
	c.Worker, c.Conn = a.worker, a.conn
	return a.recorder.call(c, do)
}

// seen remembers that so many records of a log were seen and returns how many at most.
func (a *actor) seen(key, n uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[key] = max(a.last[key], n)
	return a.last[key]
}

// childMain is the main function of a child. It reads rounds and writes calls; after
// the last call of a round comes one that has no name.
func childMain(process int, socket string) error {
	ctx := context.Background()
	var pools [connsEach]api.Pool
	for i := range pools {
		c, err := client.Dial(ctx, client.Options{Socket: socket})
		if err != nil {
			return err
		}
		defer c.Close() // the process ends
		if pools[i], err = c.OpenPool(ctx, poolName); err != nil {
			return err
		}
	}
	rec := &recorder{process: process + 1}
	in, out := json.NewDecoder(os.Stdin), bufio.NewWriter(os.Stdout)
	write := json.NewEncoder(out)
	for {
		var r round
		if in.Decode(&r) != nil {
			return nil // its end is what is waited for
		}
		play(rec, &r, process, pools[:])
		for _, c := range append(rec.take(), &call{}) {
			if err := write.Encode(c); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// play has all workers of a process do a round.
func play(rec *recorder, r *round, process int, pools []api.Pool) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	last := make(map[uint64]uint64)
	worker := process * 8
	work := func(conn int, f func(a *actor, rng *rand.Rand)) {
		a := &actor{recorder: rec, round: *r, pool: pools[conn], conn: process*connsEach + conn, worker: worker, mu: &mu, last: last}
		worker++
		wg.Go(func() { f(a, rand.New(rand.NewPCG(r.Seed, uint64(a.worker)))) })
	}
	for i := range pools {
		work(i, (*actor).objects)
		work(i, (*actor).roots)
		work(i, (*actor).logs)
	}
	work(0, (*actor).objects)
	wg.Wait()
}
