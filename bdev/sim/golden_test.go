package sim

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/mpool-go/mpool/bdev"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// script runs the commands of a golden file. Content is one letter a sector:
// '.' zeros, a letter as written, '?' unreadable, '#' anything else, and '|'
// between pages.
//
//	disk KiB [phys=4096] [writethrough] [discard=zero|garbage]
//	write FIRST COUNT LETTER        a write that ends
//	start NAME FIRST COUNT LETTER   a write that starts
//	fetch NAME COUNT                the device reads more of its buffer
//	end NAME
//	discard FIRST COUNT
//	flush | flush-start | flush-end
//	kill SEED
//	show                            prints current and durable content
//	survivors MODE...               prints each medium that the modes leave
type script struct {
	disk     *Disk
	underway map[string]*transfer
	flushEnd uint64
}

// aligned returns memory that a drive accepts.
func aligned(n int) []byte {
	p := make([]byte, n+pageSize)
	from := -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (pageSize - 1)
	return p[from : from+n : from+n]
}

// letters returns sectors full of one letter.
func letters(n int, letter byte) []byte {
	p := aligned(n * sectorSize)
	for i := range p {
		p[i] = letter
	}
	return p
}

func (s *script) start(first, count int64, letter byte) *transfer {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	w := s.disk.beginLocked(first*sectorSize, count*sectorSize, letter == 0)
	o := &bdev.Op{Code: bdev.OpWrite, Offset: w.offset, Buf: letters(int(count), letter)}
	if letter == 0 {
		s.disk.discardPiecesLocked(w, rand.New(rand.NewPCG(1, 1)))
	}
	return &transfer{op: o, write: w.start}
}

func (s *script) fetch(t *transfer, sectors int64) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for _, w := range s.disk.underway {
		if w.start == t.write {
			w.fetch(t.op, min(w.size, w.fetched+sectors*sectorSize))
		}
	}
}

func (s *script) end(t *transfer) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	w := s.disk.leaveLocked(t.write)
	if !w.discard {
		w.fetch(t.op, w.size)
	}
	s.disk.arriveLocked(w)
}

func (s *script) run(line string) string {
	f := strings.Fields(line)
	num := func(i int) int64 {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	switch f[0] {
	case "disk":
		s.disk, s.underway = newScriptDisk(num(1), f[2:]), map[string]*transfer{}
	case "write":
		s.end(s.start(num(1), num(2), f[3][0]))
	case "discard":
		s.end(s.start(num(1), num(2), 0))
	case "start":
		s.underway[f[1]] = s.start(num(2), num(3), f[4][0])
	case "fetch":
		s.fetch(s.underway[f[1]], num(2))
	case "end":
		s.end(s.underway[f[1]])
	case "flush-start":
		s.flushEnd = s.disk.ends
	case "flush-end":
		s.disk.flushLocked(s.flushEnd)
	case "flush":
		s.disk.flushLocked(s.disk.ends)
	case "kill":
		s.disk.Kill(rand.New(rand.NewPCG(uint64(num(1)), 1)))
	case "show":
		return "current  " + picture(s.disk) + "\ndurable  " + picture(s.disk.Durable()) + "\n"
	case "survivors":
		return survivors(s.disk, f[1:])
	default:
		panic("unknown command " + f[0])
	}
	return ""
}

func newScriptDisk(kib int64, args []string) *Disk {
	o := DiskOptions{DiscardRead: DiscardZero}
	for _, a := range args {
		switch a {
		case "phys=4096":
			o.PhysicalSector = 4096
		case "writethrough":
			o.WriteThrough = true
		case "discard=garbage":
			o.DiscardRead = DiscardGarbage
		case "discard=zero":
		default:
			panic("unknown disk option " + a)
		}
	}
	return NewDisk(kib<<10, o)
}

// picture shows a disk's content, one letter a sector.
func picture(d *Disk) string {
	var b strings.Builder
	p := make([]byte, sectorSize)
	for at := int64(0); at < d.Size(); at += sectorSize {
		if at > 0 && at%pageSize == 0 {
			b.WriteByte('|')
		}
		_, err := d.ReadAt(p, at)
		switch {
		case err != nil:
			b.WriteByte('?')
		case bytes.Count(p, p[:1]) != sectorSize:
			b.WriteByte('#')
		case p[0] == 0:
			b.WriteByte('.')
		default:
			b.WriteByte(p[0])
		}
	}
	return b.String()
}

// survivors lists all distinct survivors of the modes, found by many draws.
func survivors(d *Disk, modes []string) string {
	seen := map[string]bool{}
	rng := rand.New(rand.NewPCG(7, 7))
	for _, name := range modes {
		name = strings.ReplaceAll(name, "_", " ")
		mode := CutChosen + 1
		for m := range CutChosen {
			if m.String() == name {
				mode = m
			}
		}
		if mode > CutChosen {
			panic("unknown mode " + name)
		}
		for range 3000 {
			n, _ := d.Survivor(rng, CutOptions{Mode: mode})
			seen[picture(n)] = true
		}
	}
	all := make([]string, 0, len(seen))
	for p := range seen {
		all = append(all, p)
	}
	slices.Sort(all)
	if len(all) > 40 {
		return fmt.Sprintf("%d survivors\n", len(all))
	}
	return strings.Join(all, "\n") + "\n"
}

// The golden files hold commands, each followed by what it prints, indented.
func TestGoldenCrashSemantics(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			s := &script{}
			for line := range strings.Lines(string(want)) {
				line = strings.TrimRight(line, "\n")
				if strings.HasPrefix(line, "    ") {
					continue
				}
				got.WriteString(line + "\n")
				if line == "" || line[0] == '#' {
					continue
				}
				for out := range strings.Lines(s.run(line)) {
					got.WriteString("    " + out)
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(want) {
				t.Errorf("%s: got\n%s", file, got.String())
			}
		})
	}
}
