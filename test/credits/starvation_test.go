package credits

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	envReads  = "MPOOL_CREDITS_READS" // the object of a process that reads until it is killed
	readers   = 4                     // processes
	perReader = 3                     // users of each
	contested = 1 << 20               // bytes that all want
)

// stream acquires and releases reads without a pause, some from what is cached, others
// of the daemon, until it is killed.
func stream(socket, what string) error {
	n, err := strconv.ParseUint(what, 16, 64)
	if err != nil {
		return err
	}
	w, err := dialWire(socket, poolName)
	if err != nil {
		return err
	}
	id := layout.ObjectID(n)
	fmt.Println("ready")
	errs := make(chan error, perReader)
	for range perReader {
		go func() {
			for i := 0; ; i++ {
				h, err := w.acquire(ctx, id, credit.Read, 0, contested, 0)
				if err == nil {
					err = h.Release(credit.Version{})
				}
				if err != nil {
					errs <- err
					return
				}
				if i%8 == 0 {
					w.owner.GiveBack(objectOf(id), credit.Access.All())
				}
			}
		}()
	}
	return <-errs
}

// startStream starts a process that reads.
func (b *bench) startStream(id layout.ObjectID) {
	b.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envSocket+"="+b.d.Socket, envReads+"="+strconv.FormatUint(uint64(id), 16))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	})
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		b.t.Fatal(err)
	}
}

// granted returns the number of the daemon's grants so far: it has one of its own, of
// bytes that nobody else wants.
func granted(p *process, id layout.ObjectID) uint64 {
	p.t.Helper()
	n := p.ok(order{Verb: "acquire", ID: id, Mode: credit.Read, First: 2 * contested, End: 2*contested + 1, Slot: 1}).Token[0]
	p.ok(order{Verb: "release", Slot: 1})
	p.ok(order{Verb: "give back", ID: id, Mode: credit.Read, First: 2 * contested, End: 2*contested + 1})
	return n
}

// proves G46: a writer is served among processes that acquire and release reads without
// a pause. From when it waits until it has what it wants the daemon grants no read:
// counted by the tokens, of which each grant takes one.
func TestWriterAmongReaders(t *testing.T) {
	b := newBench(t, "")
	id := b.mblock()
	for range readers {
		b.startStream(id)
	}
	holder, writer, counter := start(t, b.d), start(t, b.d), start(t, b.d)
	write := order{Verb: "acquire", ID: id, Mode: credit.Write, End: contested}
	last, passed := uint64(0), uint64(0)
	for round := range 5 {
		daemon.Eventually(t, "the stream of reads goes on", func() bool { return granted(counter, id) >= last+50 })
		holder.ok(order{Verb: "acquire", ID: id, Mode: credit.Read, End: contested}) // the writer has to wait
		writer.begin(write)
		daemon.Eventually(t, "the writer waits, and all readers behind it", func() bool {
			sessions := map[uint64]bool{}
			for _, i := range b.list() {
				if i.State == ioctl.CreditWaiting {
					sessions[i.Session] = true
				}
			}
			return len(sessions) == readers+1
		})
		before := granted(counter, id)
		holder.ok(order{Verb: "release"})
		r := writer.result()
		if r.Code != "" || r.Token[0] != before+1 {
			t.Errorf("round %d: the writer has %+v; %d reads were granted after it had come", round, r, r.Token[0]-before-1)
		}
		writer.ok(order{Verb: "release"})
		writer.ok(order{Verb: "give back", ID: id, Mode: credit.Write, End: contested})
		// Without the holder, and so without waiting for who waits: it is served all the same.
		before = r.Token[0]
		r = writer.ok(write)
		writer.ok(order{Verb: "release"})
		writer.ok(order{Verb: "give back", ID: id, Mode: credit.Write, End: contested})
		last, passed = r.Token[0], passed+r.Token[0]-before-1
	}
	t.Logf("%d grants before the writer was served five times more", passed)
}
