package mlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/layout"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// goldenLog is a small log with every kind of fragment and page. Its images
// are the format's golden files.
func goldenLog(t testing.TB) (r *rig, want [][]byte) {
	t.Helper()
	r = newRig(t, nil, 4)
	r.c.Birth, r.c.Generation, r.c.Epoch = 0x0102030405060708, 3, 5
	r.format(t)
	l := r.open(t)
	for _, group := range [][]string{
		{"hello", ""},
		{"world", strings.Repeat("0123456789abcdef", 600), "tail"},
	} {
		for _, s := range group {
			want = append(want, []byte(s))
			mustAppend(t, l, []byte(s))
		}
		mustSync(t, l)
	}
	mustClose(t, l)
	return r, want
}

// annotate writes a page as text: each field with its bytes, each fragment, the
// data in short.
func annotate(w *strings.Builder, b []byte) {
	field := func(name string, at, n int) {
		v := uint64(0)
		for i := n - 1; i >= 0; i-- {
			v = v<<8 | uint64(b[at+i])
		}
		fmt.Fprintf(w, "  %04x  %-24s %-11s %#x\n", at, hex.EncodeToString(b[at:at+n]), name, v)
	}
	field("magic", offMagic, 4)
	field("version", offVersion, 1)
	field("flags", offFlags, 1)
	field("used", offUsed, 2)
	field("birth", offBirth, 8)
	field("generation", offGeneration, 8)
	field("epoch", offEpoch, 8)
	field("group", offGroup, 8)
	field("durable", offDurable, 8)
	field("first", offFirst, 8)
	field("index", offIndex, 4)
	field("prev", offPrev, 4)
	field("crc", offCRC, 4)
	field("reserved", offReserved, 4)
	used := int(binary.LittleEndian.Uint16(b[offUsed:]))
	for at := offPayload; at < offPayload+used; {
		n := int(binary.LittleEndian.Uint16(b[at:]))
		data := b[at+FragmentHeader : at+FragmentHeader+n]
		if len(data) > 16 {
			data = data[:16]
		}
		fmt.Fprintf(w, "  %04x  %-24s fragment    %v, %d bytes of %d: %q\n", at, hex.EncodeToString(b[at:at+FragmentHeader]),
			FragmentType(b[at+2]), n, binary.LittleEndian.Uint32(b[at+4:]), data)
		at += FragmentHeader + n
	}
	rest := b[offPayload+used:]
	fmt.Fprintf(w, "  %04x  %d bytes, all zero: %v\n", offPayload+used, len(rest), len(bytes.Trim(rest, "\x00")) == 0)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is written now; if the format is meant to change, run with -rewrite", path)
	}
}

// The bytes of a log never change: pools are there that hold them.
func TestGolden(t *testing.T) {
	r, want := goldenLog(t)
	extent := r.c.Extent
	image := make([]byte, extent.Size())
	if _, err := r.disk.ReadAt(image, extent.Offset()); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range int(extent.Blocks) {
		b := image[i*PageSize : (i+1)*PageSize]
		switch k, ok := final(i); {
		case len(bytes.Trim(b, "\x00")) == 0:
			continue
		case ok:
			fmt.Fprintf(&text, "final page %d, at %#x of the extent\n", k, i*PageSize)
		default:
			fmt.Fprintf(&text, "tail slot %d of pair %c, at %#x of the extent\n", i%PairPages, 'A'+i/PairPages, i*PageSize)
		}
		annotate(&text, b)
	}
	golden(t, "log.txt", []byte(text.String()))
	golden(t, "log.bin", image)

	// And the other way round: the golden bytes are that log.
	stored, err := os.ReadFile(filepath.Join("testdata", "log.bin"))
	if err != nil {
		t.Fatal(err)
	}
	c := r.c
	r = newRig(t, nil, extent.Blocks-SlotPages)
	overwrite(r.disk, extent.Offset(), stored)
	c.Drive = r.drive
	r.c = c
	checkLog(t, r, want)
}

// testPage makes a valid final page with the given fragments' lengths.
func testPage(h Header, fragments ...Fragment) []byte {
	b := make([]byte, PageSize)
	at := offPayload
	for _, f := range fragments {
		putFragmentHeader(b[at:], f.Type, len(f.Data), int(f.Total))
		copy(b[at+FragmentHeader:], f.Data)
		at += FragmentHeader + len(f.Data)
	}
	h.Used = uint16(at - offPayload)
	h.seal(b)
	return b
}

func fragment(kind FragmentType, length, total int) Fragment {
	return Fragment{Type: kind, Total: uint32(total), Data: record(uint64(length), length)}
}

var testHeader = Header{Birth: testBirth, Generation: 1, Epoch: 1, Group: 2, Durable: 1, First: 3, Index: 1, Prev: 77}

func TestDecodePage(t *testing.T) {
	tail := testHeader
	tail.Flags = FlagTail
	full := dataPerPage
	for name, b := range map[string][]byte{
		"full":           testPage(testHeader, fragment(FragmentFull, full, full)),
		"room for 8":     testPage(testHeader, fragment(FragmentFull, full-8, full-8)),
		"first":          testPage(testHeader, fragment(FragmentFull, 10, 10), fragment(FragmentFirst, full-18, full)),
		"middle":         testPage(testHeader, fragment(FragmentMiddle, full, 3*full)),
		"last and full":  testPage(testHeader, fragment(FragmentLast, 10, full), fragment(FragmentFull, full-18, full-18)),
		"last and first": testPage(testHeader, fragment(FragmentLast, 10, full), fragment(FragmentFirst, full-18, full)),
		"empty records":  testPage(testHeader, fragment(FragmentFull, full-16, full-16), fragment(FragmentFull, 0, 0), fragment(FragmentFull, 0, 0)),
		"tail":           testPage(tail, fragment(FragmentLast, 10, full), fragment(FragmentFull, 0, 0)),
		"empty tail":     testPage(tail),
	} {
		p, err := DecodePage(b, testBirth)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n := 0
		for number, f := range p.All() {
			if number != p.First+uint64(n) || f.Type == 0 {
				t.Errorf("%s: fragment %d of record %d", name, n, number)
			}
			n++
		}
		if n != p.Fragments {
			t.Errorf("%s: %d fragments, want %d", name, n, p.Fragments)
		}
		if _, err := DecodePage(b, testBirth+1); !errors.Is(err, ErrPage) {
			t.Errorf("%s: taken for another birth", name)
		}
		// Every byte is under the checksum.
		for i := range b {
			b[i] ^= 0x10
			if _, err := DecodePage(b, testBirth); !errors.Is(err, ErrPage) {
				t.Errorf("%s: byte %d flipped: %v", name, i, err)
			}
			b[i] ^= 0x10
		}
	}
	for _, n := range []int{0, 1, HeaderSize, PageSize - 1, PageSize + 1} {
		if _, err := DecodePage(make([]byte, n), 0); !errors.Is(err, ErrPage) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Pages with a good checksum that no log writes.
func TestDecodePageRefuses(t *testing.T) {
	with := func(change func(h *Header)) Header {
		h := testHeader
		change(&h)
		return h
	}
	page := func(h Header) []byte { return testPage(h, fragment(FragmentFull, dataPerPage, dataPerPage)) }
	reseal := func(change func(b []byte)) []byte {
		b := page(testHeader)
		change(b)
		binary.LittleEndian.PutUint32(b[offCRC:], PageCRC(b))
		return b
	}
	tail := with(func(h *Header) { h.Flags = FlagTail })
	full := dataPerPage
	for name, b := range map[string][]byte{
		"unknown flag":           page(with(func(h *Header) { h.Flags = 4 })),
		"clean final page":       page(with(func(h *Header) { h.Flags = FlagClean })),
		"group 0":                page(with(func(h *Header) { h.Group, h.Durable = 0, 0 })),
		"durable itself":         page(with(func(h *Header) { h.Durable = h.Group })),
		"prev of the first page": page(with(func(h *Header) { h.Index = 0 })),
		"version":                reseal(func(b []byte) { b[offVersion] = 2 }),
		"reserved":               reseal(func(b []byte) { b[offReserved] = 1 }),
		"used too large":         reseal(func(b []byte) { b[offUsed], b[offUsed+1] = 0xff, 0xff }),
		"not zero behind":        reseal(func(b []byte) { b[offUsed], b[offUsed+1] = 0, 0 }),
		"reserved in fragment":   reseal(func(b []byte) { b[offPayload+3] = 1 }),
		"fragment type 0":        reseal(func(b []byte) { b[offPayload+2] = 0 }),
		"fragment type 5":        reseal(func(b []byte) { b[offPayload+2] = 5 }),
		"fragment too long":      reseal(func(b []byte) { b[offPayload]++ }),
		"total is not length":    reseal(func(b []byte) { b[offPayload+4]++ }),
		"final page not full":    testPage(testHeader, fragment(FragmentFull, 10, 10)),
		"full tail":              testPage(tail, fragment(FragmentFull, full, full)),
		"open tail":              testPage(tail, fragment(FragmentFirst, 10, 20)),
		"first not to the end":   testPage(testHeader, fragment(FragmentFirst, full-1, full+5)),
		"first is all":           testPage(testHeader, fragment(FragmentFirst, full, full)),
		"middle is all":          testPage(testHeader, fragment(FragmentMiddle, full, full)),
		"short middle":           testPage(testHeader, fragment(FragmentMiddle, 10, 2*full), fragment(FragmentFull, full-18, full-18)),
		"last is all":            testPage(testHeader, fragment(FragmentLast, full, full)),
		"empty last":             testPage(testHeader, fragment(FragmentLast, 0, full), fragment(FragmentFull, full-8, full-8)),
		"last in the middle":     testPage(testHeader, fragment(FragmentFull, 10, 10), fragment(FragmentLast, full-18, full)),
		"record too long":        testPage(testHeader, fragment(FragmentMiddle, full, MaxRecord+1)),
	} {
		if _, err := DecodePage(b, testBirth); !errors.Is(err, ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChain(t *testing.T) {
	full := dataPerPage
	c := chain{generation: 1, index: 1, prev: 77, epoch: 1, group: 2, next: 3, bytes: 5}
	decode := func(change func(h *Header), f ...Fragment) *Page {
		h := testHeader
		change(&h)
		p, err := DecodePage(testPage(h, f...), testBirth)
		if err != nil {
			t.Fatal(err)
		}
		return &p
	}
	same := func(*Header) {}
	whole := fragment(FragmentFull, full, full)
	for name, p := range map[string]*Page{
		"generation":   decode(func(h *Header) { h.Generation++ }, whole),
		"index":        decode(func(h *Header) { h.Index++ }, whole),
		"prev":         decode(func(h *Header) { h.Prev++ }, whole),
		"epoch":        decode(func(h *Header) { h.Epoch-- }, whole),
		"group":        decode(func(h *Header) { h.Group, h.Durable = 1, 0 }, whole),
		"first":        decode(func(h *Header) { h.First++ }, whole),
		"continuation": decode(same, fragment(FragmentMiddle, full, 3*full)),
	} {
		if err := c.check(p); !errors.Is(err, ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := decode(func(h *Header) { h.Epoch, h.Group, h.Durable = 2, 1, 0 }, fragment(FragmentFull, 10, 10), fragment(FragmentFirst, full-18, 3*full))
	if err := c.check(p); err != nil {
		t.Fatal(err)
	}
	c.add(p)
	if want := (chain{1, 2, p.CRC, 2, 1, 4, true, uint32(3 * full), uint32(full - 18), int64(5 + full - 8)}); c != want {
		t.Fatalf("%+v, want %+v", c, want)
	}
	next := func(h *Header) {
		h.Index, h.Prev, h.Epoch, h.Group, h.Durable, h.First = 2, p.CRC, 2, 1, 0, 4
	}
	for name, p := range map[string]*Page{
		"new record":   decode(next, whole),
		"other record": decode(next, fragment(FragmentMiddle, full, 4*full)),
		"too early":    decode(next, fragment(FragmentLast, full, 3*full)),
	} {
		if err := c.check(p); !errors.Is(err, ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p = decode(next, fragment(FragmentMiddle, full, 3*full))
	if err := c.check(p); err != nil {
		t.Fatal(err)
	}
	c.add(p)
	if !c.open || c.have != uint32(2*full-18) || c.next != 4 {
		t.Fatalf("%+v", c)
	}
}

// Places are where a log that packs records one by one would put them.
func TestPlaces(t *testing.T) {
	walk := func(p place, n int) place {
		if left := PayloadSize - p.used; left < FragmentHeader || n > 0 && left == FragmentHeader {
			p = place{page: p.page + 1}
		}
		for first := true; first || n > 0; first = false {
			here := min(n, PayloadSize-p.used-FragmentHeader)
			p.used += FragmentHeader + here
			n -= here
			if PayloadSize-p.used < FragmentHeader {
				p = place{page: p.page + 1}
			}
		}
		return p
	}
	for used := 0; used <= dataPerPage; used += 1 + used%7 {
		p := place{page: 3, used: used}
		for n := 0; n < 3*PageSize; n += 1 + n%5 {
			if got, want := p.after(int64(n)), walk(p, n); got != want {
				t.Fatalf("%d bytes at %+v: %+v, want %+v", n, p, got, want)
			}
			if took := p.after(int64(n)).bytes() - p.bytes(); took > Cost(int64(n)) {
				t.Fatalf("%d bytes at %+v take %d, Cost is %d", n, p, took, Cost(int64(n)))
			}
		}
	}
}

func TestBlocksFor(t *testing.T) {
	for _, n := range []int64{0, 1, dataPerPage - 1, dataPerPage, dataPerPage + 1, 10 * dataPerPage, MaxRecord - 1, MaxRecord} {
		blocks := BlocksFor(n)
		if !(place{}).after(n).fits(finalPages(blocks)) {
			t.Errorf("%d blocks do not hold %d bytes", blocks, n)
		}
		if blocks > SlotPages+1 && (place{}).after(n).fits(finalPages(blocks-1)) {
			t.Errorf("%d blocks are more than %d bytes need", blocks, n)
		}
	}
	if got, want := BlocksFor(3*MaxRecord), uint32(SlotPages+(3*MaxRecord)/dataPerPage+1); got != want {
		t.Errorf("BlocksFor(48 MiB) = %d, want %d", got, want)
	}
	if BlocksFor(-1) != 0 || BlocksFor(1<<60) != 0 || BlocksFor(1<<43) == 0 {
		t.Error("limits")
	}
	if Usable(0) != 0 || Usable(SlotPages) != 0 || Usable(SlotPages+2) != 2*PayloadSize {
		t.Error("Usable")
	}
}

// Any page that is accepted has the structure that it claims, and is made anew
// from its parts.
func FuzzPage(f *testing.F) {
	r, _ := goldenLog(f)
	for i := range r.c.Extent.Blocks {
		b := make([]byte, PageSize)
		if _, err := r.disk.ReadAt(b, r.c.Extent.Offset()+int64(i)*PageSize); err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint64(r.c.Birth), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, birth uint64, seal bool) {
		b = bytes.Clone(b) // the fuzzer's own bytes must stay
		if seal && len(b) == PageSize {
			binary.LittleEndian.PutUint64(b[offBirth:], birth)
			binary.LittleEndian.PutUint32(b[offCRC:], PageCRC(b))
		}
		p, err := DecodePage(b, layout.BirthStamp(birth))
		if err != nil {
			if !errors.Is(err, ErrPage) {
				t.Fatal(err)
			}
			return
		}
		if _, err := DecodePage(b, layout.BirthStamp(birth)+1); err == nil {
			t.Fatal("a page of another birth")
		}
		var list []Fragment
		for _, f := range p.All() {
			list = append(list, f)
		}
		h := p.Header
		if again := testPage(h, list...); !bytes.Equal(again, b) {
			t.Fatal("the page is not made of its parts")
		}
	})
}
