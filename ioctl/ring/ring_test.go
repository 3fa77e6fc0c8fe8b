package ring

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// shared maps memory as a ring's is: in pages of its own.
func shared(t testing.TB, entries int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, Size(entries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return mem
}

func ends(t testing.TB, entries int) (*Client, *Daemon, []byte) {
	t.Helper()
	mem := shared(t, entries)
	c, err := NewClient(mem, entries)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDaemon(mem, entries)
	if err != nil {
		t.Fatal(err)
	}
	return c, d, mem
}

func sample(n uint64) Descriptor {
	return Descriptor{
		Op: uint16(n), Flags: uint8(n >> 1), Arena: uint16(n >> 2), Window: uint32(n * 4096), Length: uint32(n * 7),
		Tag: n << 20, Handle: ^n, Offset: -int64(n), Class: uint8(n >> 3), Owner: uint32(n * 11), Label: n * 13,
	}
}

// The form is as the package says, to the byte.
func TestForm(t *testing.T) {
	c, d, mem := ends(t, 2)
	x := Descriptor{
		Op: 0x0102, Flags: 0x03, Arena: 0x0405, Window: 0x06070809, Length: 0x0a0b0c0d,
		Tag: 0x1112131415161718, Handle: 0x2122232425262728, Offset: 0x3132333435363738,
		Class: 0x81, Owner: 0x82838485, Label: 0x9192939495969798,
	}
	c.Put(&x)
	c.Doze(1)
	d.Doze()
	if err := d.Take(&x); err != nil {
		t.Fatal(err)
	}
	d.Doze()
	d.Complete(&Completion{
		Tag: 0x4142434445464748, N: 0x51525354, Op: 0x5556, Flags: 0x5758, A: 0x6162636465666768, B: 0x7172737475767778,
	})
	var text strings.Builder
	for at := 0; at < len(mem); at += 32 {
		if line := mem[at : at+32]; strings.Trim(string(line), "\x00") != "" {
			text.WriteString(hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(at))) + ": " + hex.EncodeToString(line) + "\n")
		}
	}
	golden := filepath.Join("testdata", "form.golden")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the memory is\n%swant\n%s", text.String(), want)
	}
}

func TestSize(t *testing.T) {
	for entries, want := range map[int]int{
		-1: 0, 0: 0, 1: 0, 2: 8192, 3: 0, 32: 8192, 64: 12288, 4096: 397312, 8192: 0, 1 << 40: 0,
	} {
		if n := Size(entries); n != want {
			t.Errorf("%d entries take %d bytes, want %d", entries, n, want)
		}
	}
	mem := shared(t, 64)
	for _, bad := range [][]byte{nil, mem[:4096], mem[8:], mem[4096:]} {
		if _, err := NewDaemon(bad, 64); err == nil {
			t.Errorf("a ring of 64 entries in %d bytes", len(bad))
		}
	}
}

// What goes in comes out, in order, once, also where the counters wrap.
func TestOrder(t *testing.T) {
	for _, first := range []uint32{0, ^uint32(0) - 20} {
		const entries = 8
		c, d, _ := ends(t, entries)
		c.submitted, c.seen, d.taken, d.ended = first, first, first, first
		for _, at := range []uintptr{submittedAt, takenAt, endedAt, seenAt} {
			d.m.word(at).Store(first)
		}
		rng := rand.New(rand.NewPCG(1, uint64(first)))
		var put, taken, ended, seen uint64
		for seen < 5000 {
			switch rng.IntN(4) {
			case 0:
				x := sample(put)
				if c.Put(&x) != (put-taken < entries) {
					t.Fatalf("put %d, taken %d", put, taken)
				}
				if put-taken < entries {
					put++
				}
			case 1:
				ready, err := d.Ready()
				room, rerr := d.Room()
				if err != nil || rerr != nil || ready != int(put-taken) || room != int(entries-(taken-seen)) {
					t.Fatalf("ready %d, %v, room %d, %v of put %d, taken %d, seen %d", ready, err, room, rerr, put, taken, seen)
				}
				if min(ready, room) > 0 {
					var x Descriptor
					if err := d.Take(&x); err != nil || x != sample(taken) {
						t.Fatalf("%+v, %v, want %+v", x, err, sample(taken))
					}
					taken++
				}
			case 2:
				if ended < taken {
					d.Complete(&Completion{Tag: ended, N: uint32(ended), Op: 1, Flags: 2, A: ended * 3, B: ^ended})
					ended++
				}
			case 3:
				var x Completion
				if c.Take(&x) != (seen < ended) {
					t.Fatalf("seen %d, ended %d", seen, ended)
				}
				if seen < ended {
					if x != (Completion{Tag: seen, N: uint32(seen), Op: 1, Flags: 2, A: seen * 3, B: ^seen}) {
						t.Fatalf("%+v, want %d", x, seen)
					}
					seen++
				}
			}
			if d.Open() != int(taken-ended) {
				t.Fatalf("%d are open, want %d", d.Open(), taken-ended)
			}
		}
	}
}

// Neither side sleeps over what the other has for it: all of a long exchange
// comes to its end although nobody ever polls.
func TestSleep(t *testing.T) {
	const entries, n = 4, 20000
	c, d, _ := ends(t, entries)
	var all sync.WaitGroup
	all.Go(func() {
		for got := 0; got < n; {
			ready, err := d.Ready()
			room, rerr := d.Room()
			if err != nil || rerr != nil {
				t.Error(err, rerr)
				return
			}
			if min(ready, room) == 0 {
				if word := d.Doze(); word != nil {
					Listen(word, -1)
					d.Rise()
				}
				continue
			}
			for range min(ready, room) {
				var x Descriptor
				if err := d.Take(&x); err != nil {
					t.Error(err)
					return
				}
				d.Complete(&Completion{Tag: x.Tag})
				got++
			}
			d.Notify()
		}
	})
	put, seen := uint64(0), uint64(0)
	var x Completion
	for seen < n {
		for put < n && put-seen < entries && c.Put(&Descriptor{Tag: put}) {
			put++
		}
		c.Bell()
		for !c.Take(&x) {
			c.Wait(-1)
		}
		if x.Tag != seen {
			t.Fatalf("completion %d, want %d", x.Tag, seen)
		}
		seen++
	}
	all.Wait()
}

// A wait for the bell ends by EndWait, and a client's by Wake.
func TestEndOfWaits(t *testing.T) {
	c, d, _ := ends(t, 4)
	ended := make(chan bool)
	word := d.Doze()
	go func() {
		Listen(word, -1)
		close(ended)
	}()
	for over := false; !over; {
		d.EndWait()
		select {
		case <-ended:
			over = true
		case <-time.After(time.Millisecond):
			d.m.word(bellAt).Store(1) // as a hostile client would
		}
	}
	ended = make(chan bool)
	c.Doze(1)
	go func() {
		c.Sleep(-1)
		close(ended)
	}()
	c.Wake()
	<-ended
}

// checkDaemon does with a ring what the daemon does, and finds nothing that its
// own numbers exclude, whatever is in the memory.
func checkDaemon(t testing.TB, d *Daemon, rng *rand.Rand) error {
	t.Helper()
	entries := int(d.m.entries)
	ready, err := d.Ready()
	if err != nil {
		return err
	}
	room, err := d.Room()
	if err != nil {
		return err
	}
	if ready < 0 || ready > entries || room < 0 || room > entries-d.Open() {
		t.Fatalf("ready %d, room %d of %d entries, %d open", ready, room, entries, d.Open())
	}
	for range min(ready, room) {
		var x Descriptor
		if err := d.Take(&x); err != nil {
			d.Fail()
			return err
		}
	}
	if d.Open() > entries {
		t.Fatalf("%d are open, of %d entries", d.Open(), entries)
	}
	for d.Open() > 0 && rng.IntN(4) != 0 {
		if rng.IntN(2) == 0 {
			d.Fail()
		} else {
			d.Complete(&Completion{})
		}
	}
	d.Notify()
	if d.Doze() != nil {
		d.Rise()
	}
	return nil
}

// Who scribbles over a ring from another thread at any moment is told from one who
// does not, or is served nonsense; the daemon's own numbers stay what they are.
//
// proves S43
func TestScribble(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var stop atomic.Bool
	var scribbler sync.WaitGroup
	mem := shared(t, 16)
	m, err := newMemory(mem, 16)
	if err != nil {
		t.Fatal(err)
	}
	words := []uintptr{submittedAt, takenAt, bellAt, endedAt, seenAt, waiterAt, wantedAt}
	scribbler.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for !stop.Load() {
			w := m.word(words[rng.IntN(len(words))])
			switch rng.IntN(4) {
			case 0:
				w.Store(rng.Uint32())
			case 1:
				w.Add(1)
			case 2:
				w.Store(m.word(words[rng.IntN(len(words))]).Load() + rng.Uint32N(20))
			case 3:
				m.descriptor(rng.Uint32())[rng.IntN(8)].Store(rng.Uint64() >> rng.IntN(64))
			}
		}
	})
	rng := rand.New(rand.NewPCG(seed, 2))
	broken, served := 0, 0
	for i := 0; i < 2000 || (broken == 0 || served == 0) && i < 10_000_000; i++ {
		if i >= 2000 { // the scribbler has no processor, and what it left is all that is seen
			runtime.Gosched()
		}
		if i%2 == 0 { // what it left may be nothing but nonsense
			for _, w := range words {
				m.word(w).Store(0)
			}
		}
		d, err := NewDaemon(mem, 16)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := checkDaemon(t, d, rng); err != nil {
				if !errors.Is(err, ErrBroken) {
					t.Fatal(err)
				}
				broken++
				break
			}
			served++
		}
	}
	stop.Store(true)
	scribbler.Wait()
	if broken == 0 || served == 0 {
		t.Errorf("%d rings were found broken, %d turns were served", broken, served)
	}
}

// FuzzDaemon gives the daemon memory of any content.
func FuzzDaemon(f *testing.F) {
	f.Add(uint32(1), uint32(0), []byte{52, 0, 0, 0, 1, 0})
	f.Add(uint32(9), uint32(0), []byte{})
	f.Add(uint32(4), ^uint32(0), []byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, submitted, seen uint32, descriptors []byte) {
		const entries = 8
		words := make([]uint64, Size(entries)/8+8)
		mem := unsafeBytes(words)[:Size(entries)]
		copy(mem[headSize:], descriptors)
		d, err := NewDaemon(mem, entries)
		if err != nil {
			t.Fatal(err)
		}
		d.m.word(submittedAt).Store(submitted)
		d.m.word(seenAt).Store(seen)
		rng := rand.New(rand.NewPCG(uint64(submitted), uint64(seen)))
		for range 4 {
			if err := checkDaemon(t, d, rng); err != nil {
				if !errors.Is(err, ErrBroken) {
					t.Fatal(err)
				}
				return
			}
		}
	})
}

// unsafeBytes returns memory of the heap's as bytes that begin where a cache line
// does.
func unsafeBytes(words []uint64) []byte {
	skip := -int(uintptr(unsafe.Pointer(&words[0]))/8) & 7
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[skip])), 8*(len(words)-skip))
}
