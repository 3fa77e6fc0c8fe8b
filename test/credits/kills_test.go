package credits

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

var (
	rounds = flag.Int("credits.rounds", 3, "how often processes with credits are killed")
	seed   = flag.Uint64("credits.seed", 0, "seed of what they do and when they die; 0: from the clock")
)

const (
	envStorm   = "MPOOL_CREDITS_STORM" // seed and objects of a process that goes on until it is killed
	stormUsers = 4                     // of each process
)

// storm acquires, holds and gives up credits on objects, and opens them, in
// several goroutines, until it is killed.
func storm(socket, what string) error {
	var ids []layout.ObjectID
	fields := strings.Fields(what)
	n, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return err
	}
	for _, f := range fields[1:] {
		id, err := strconv.ParseUint(f, 16, 64)
		if err != nil {
			return err
		}
		ids = append(ids, layout.ObjectID(id))
	}
	w, err := dialWire(socket, poolName)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	errs := make(chan error, stormUsers)
	for i := range stormUsers {
		go func() {
			rng := rand.New(rand.NewPCG(n, uint64(i)))
			for {
				if err := w.step(rng, ids); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// step is one thing that a user does.
func (w *wire) step(rng *rand.Rand, ids []layout.ObjectID) error {
	id := ids[rng.IntN(len(ids))]
	if rng.IntN(4) == 0 {
		if h, _, err := w.open(ioctl.OpMblockFind, &ioctl.Find{Pool: w.pool, ID: id}); err == nil && rng.IntN(8) > 0 {
			_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: h}) // it may be fenced
		}
		return nil
	}
	first := rng.Uint64N(100)
	mode := []credit.Modes{credit.Read, credit.Read, credit.Write, credit.Delete}[rng.IntN(4)]
	end := first + 1 + rng.Uint64N(100)
	if mode == credit.Delete {
		first, end = 0, credit.End
	}
	flags := credit.Flags(0)
	if rng.IntN(3) == 0 {
		flags = credit.Try
	}
	soon, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
	defer cancel()
	h, err := w.acquire(soon, id, mode, first, end, flags)
	switch {
	case err == nil:
	case errors.Is(err, credit.ErrBusy), errors.Is(err, credit.ErrTimeout):
		return nil
	default:
		return err
	}
	if rng.IntN(3) == 0 {
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // holds it
	}
	if err := h.Release(credit.Version{}); err != nil && !errors.Is(err, credit.ErrStale) {
		return err
	}
	return nil
}

// proves G47: after processes that hold credits, wait for some and open objects are
// killed at any moment, nothing is left of them, and who lives goes on.
func TestKills(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-credits.seed=%d", n)
	rng := rand.New(rand.NewPCG(n, 0))
	b := newBench(t, "[credits]\ncall_back = '20ms'\n")
	what := ""
	var ids []layout.ObjectID
	for range 4 {
		ids = append(ids, b.mblock())
		what += fmt.Sprintf(" %x", uint64(ids[len(ids)-1]))
	}
	for round := range *rounds {
		var wg sync.WaitGroup
		for range 3 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), envSocket+"="+b.d.Socket, envStorm+"="+strconv.FormatUint(rng.Uint64(), 10)+what)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var text daemon.Buffer
			cmd.Stderr = &text
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			after := time.Duration(rng.IntN(150)) * time.Millisecond
			wg.Go(func() {
				if _, err := fmt.Fscanln(out, new(string)); err != nil {
					t.Errorf("round %d: a process does not begin: %v %s", round, err, text.String())
				}
				time.Sleep(after) // and dies in the midst of what it does
				if err := cmd.Process.Kill(); err != nil {
					t.Errorf("round %d: a process has ended: %v %s", round, err, text.String())
				}
				_ = cmd.Wait() // "signal: killed"
			})
		}
		wg.Wait()
		b.residue()
	}
	for _, id := range ids {
		h, err := b.raw.Open(ioctl.OpMblockFind, &ioctl.Find{Pool: b.pool, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		b.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	}
}

// No bytes within credit messages harm the daemon, or others' credits.
func TestHostile(t *testing.T) {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("-credits.seed=%d", n)
	rng := rand.New(rand.NewPCG(n, 0))
	b := newBench(t, "")
	id := b.mblock()
	honest, err := dialWire(b.d.Socket, poolName)
	if err != nil {
		t.Fatal(err)
	}
	defer honest.end()
	h, err := honest.acquire(ctx, id, credit.Write, 0, 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	few := func(most uint64) uint64 { // of some field
		if rng.IntN(16) == 0 {
			return rng.Uint64()
		}
		return rng.Uint64N(most)
	}
	for range 8 {
		w, err := daemon.Greeted(b.d.Socket)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := w.OpenPool(poolName)
		if err != nil {
			t.Fatal(err)
		}
		hello := credit.Message{Kind: credit.Hello, Session: 1}
		if err := w.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: pool, Message: hello}); err != nil {
			t.Fatal(err)
		}
		_, body, err := w.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var welcome ioctl.CreditMessage
		if err := ioctl.Decode(&welcome, body); err != nil || welcome.Message.Kind != credit.Welcome {
			t.Fatalf("%v, %v", welcome, err)
		}
		for seq := range uint64(300) {
			first := few(200)
			m := credit.Message{
				Kind: credit.Kind(1 + rng.IntN(18)), Session: 1, Key: welcome.Message.Key, Seq: seq + 1, Ack: few(seq + 1), Seen: few(seq + 1),
				Resource: credit.Resource{Type: []*credit.Type{credit.Access, credit.Access, credit.Space, credit.Activation}[rng.IntN(4)], ID: few(1) + uint64(id)},
				Request:  few(20), Amount: few(3) / 2, Least: few(3) / 2, Flags: credit.Flags(rng.IntN(8)), Code: credit.Code(rng.IntN(11)),
				Token: credit.Token{few(100)}, Version: credit.Version{few(9)},
			}
			if rng.IntN(4) > 0 {
				m.Kind = []credit.Kind{credit.Borrow, credit.Return, credit.Kept, credit.Withdraw}[rng.IntN(4)]
				m.Credit = credit.Make(credit.Span{First: first, End: first + 1 + few(9)%1000, Modes: credit.Modes(1 + rng.IntN(255))})
			}
			if w.Send(ioctl.Header{Op: ioctl.OpCredit, Tag: 1}, &ioctl.CreditMessage{Pool: pool, Message: m}) != nil {
				break // it was ended
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !h.Valid() {
		t.Error("who did nothing has lost its credit")
	}
	if err := h.Release(credit.Version{}); err != nil {
		t.Error(err)
	}
	honest.end()
	b.residue()
}
