package ioctl

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	seen := map[string]bool{}
	eachSample(func(name string, h Header, m Message) {
		b, err := Append(nil, h, m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := filepath.Join("testdata", name+".hex")
		seen[name+".hex"] = true
		if *rewrite {
			if err := os.WriteFile(path, []byte(hex.Dump(b)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), hex.Dump(b)); diff != "" {
			t.Errorf("%s (-file +now):\n%s", name, diff)
		}
	})
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s is no message's", f)
		}
	}
}

// sameType compares types of resource, which are what they are by their address.
var sameType = cmp.Comparer(func(x, y *credit.Type) bool { return x == y })

func TestRoundTrip(t *testing.T) {
	eachSample(func(name string, h Header, m Message) {
		// A buffer of garbage proves that every reserved byte is written.
		dst := bytes.Repeat([]byte{0xff}, MaxMessage)[:0]
		b, err := Append(dst, h, m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := ParseHeader(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.Size, h.Version = uint32(len(b)), Version
		if got != h {
			t.Errorf("%s: header %+v, want %+v", name, got, h)
		}
		back := empty(h)
		if err := Decode(back, b[HeaderSize:]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(m, back, sameType); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", name, diff)
		}
		// No shorter and no longer body is the same message.
		for n := HeaderSize; n < len(b); n++ {
			if err := Decode(empty(h), b[HeaderSize:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if err := Decode(empty(h), append(b, 0)[HeaderSize:]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	})
}

// Every bit of a body is either read or refused: flipping one never gives the
// same message.
func TestEveryBitCounts(t *testing.T) {
	eachSample(func(name string, h Header, m Message) {
		b, err := Append(nil, h, m)
		if err != nil {
			t.Fatal(err)
		}
		body := b[HeaderSize:]
		for i := range len(body) * 8 {
			body[i/8] ^= 1 << (i % 8)
			back := empty(h)
			if err := Decode(back, body); err == nil && cmp.Equal(m, back, sameType) {
				t.Errorf("%s: bit %d of byte %d of the body means nothing", name, i%8, i/8)
			}
			body[i/8] ^= 1 << (i % 8)
		}
	})
}

func TestHeaderRefused(t *testing.T) {
	good, err := Append(nil, Header{Op: OpVersion, Tag: 1}, &Empty{})
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"short":              good[:HeaderSize-1],
		"size too small":     change(0, HeaderSize-1),
		"size too large":     change(1, 1),
		"unknown flag":       change(6, 0x80),
		"error but no reply": change(6, byte(FlagError)),
		"version 0":          change(20, 0),
		"reserved":           change(23, 1),
		"too large":          make([]byte, MaxMessage+1),
	} {
		if _, err := ParseHeader(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An unknown operation is for the caller to answer.
	if h, err := ParseHeader(change(5, 0xff)); err != nil || h.Op.Valid() {
		t.Errorf("unknown operation: %v, valid %v", err, h.Op.Valid())
	}
}

func TestTooLong(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	for name, m := range map[string]Message{
		"pool name":  &PoolName{Name: long},
		"root name":  &RootsList{After: long},
		"path":       &PoolActivate{Devices: []string{strings.Repeat("x", MaxPath+1)}},
		"devices":    &PoolCreate{Devices: make([]string, MaxDevices), Options: api.CreateOptions{Staging: []string{"x"}}},
		"inline":     &MblockWrite{Data: InlinePayload(make([]byte, MaxInline+1))},
		"mismatched": &MblockWrite{Data: Payload{Window: Window{Length: 2}, Inline: []byte("x")}},
		"spans":      &CreditMessage{Message: credit.Message{Kind: credit.Return, Credit: make(credit.Credit, MaxSpans+1)}},
		"packed":     &CreditMessage{Message: credit.Message{Kind: credit.Ack}, More: slices.Repeat([]credit.Message{{Kind: credit.Ack}}, MaxCredits)},
		"kind":       &CreditMessage{Message: credit.Message{Kind: 99}},
		"objects":    &CommitMany{Objects: make([]Handle, api.MaxCommitMany+1)},
	} {
		dst := []byte("before")
		b, err := Append(dst, Header{Op: OpVersion}, m)
		if !errors.Is(err, ErrTooLong) || string(b) != "before" {
			t.Errorf("%s: %v, %d bytes", name, err, len(b))
		}
	}
	// An error's texts are cut instead: it must reach its reader.
	e := &Error{Code: api.EIO, Op: long + long, Device: long + long + long, Detail: strings.Repeat(long, 9), Holders: make([]api.Holder, 999)}
	e.Refusal = &api.Refusal{Class: long + long, Owner: long + long}
	b, err := Append(nil, Header{Op: OpVersion, Flags: FlagReply | FlagError}, e)
	if err != nil {
		t.Fatal(err)
	}
	var back Error
	if err := Decode(&back, b[HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	if len(back.Op) != MaxName || len(back.Device) != MaxPath || len(back.Detail) != MaxText || len(back.Holders) != MaxHolders ||
		len(back.Refusal.Class) != MaxQuotaText || len(back.Refusal.Owner) != MaxQuotaText {
		t.Errorf("cut to %d %d %d %d", len(back.Op), len(back.Device), len(back.Detail), len(back.Holders))
	}
}

// The largest message of each kind that grows fits.
func TestLargest(t *testing.T) {
	name := strings.Repeat("n", MaxName)
	path := strings.Repeat("p", MaxPath)
	drives := make([]api.DriveInfo, DrivesPerPage)
	for i := range drives {
		drives[i] = api.DriveInfo{Path: path, UUID: name, State: name, Engine: name}
	}
	roots := make([]api.Root, RootsPerPage)
	owners := make([]api.Owner, OwnersPerPage)
	names := make([]string, PoolsPerPage)
	for i := range RootsPerPage {
		roots[i].Name, owners[i].Name, names[i] = name, name, name
	}
	devices := make([]string, MaxDevices)
	counters := make([]DriveCounters, StatDrivesPerPage)
	for i := range devices {
		devices[i], counters[i].Path = path, path
	}
	for _, m := range []Message{
		&PoolReply{Info: api.PoolInfo{Name: name, UUID: name, Label: name, State: name, Health: name, Drives: drives}},
		&PoolCreateReply{Result: api.CreateResult{Name: name, UUID: name, Drives: drives}},
		&PoolCreate{Name: name, Devices: devices, Options: api.CreateOptions{Label: name}},
		&RootsReply{Roots: roots},
		&OwnersReply{Owners: owners},
		&PoolListReply{Names: names},
		&ListReply{Objects: make([]api.ObjectInfo, ObjectsPerPage)},
		&StatReply{Ops: make([]OpCounters, StatOpsPerPage), Drives: counters},
		&CommitMany{Objects: make([]Handle, api.MaxCommitMany), Roots: InlinePayload(make([]byte, MaxInline))},
		&MblockReadReply{N: MaxInline, Data: make([]byte, MaxInline)},
		&CreditsReply{Credits: make([]CreditInfo, CreditsPerPage)},
		&CreditMessage{Message: credit.Message{Kind: credit.Return, Credit: make(credit.Credit, MaxSpans)}},
		fullPack(),
	} {
		if _, err := Append(nil, Header{Op: OpVersion}, m); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
}

func TestRoots(t *testing.T) {
	roots := make([]api.Root, api.MaxRoots)
	for i := range roots {
		roots[i] = api.Root{Name: fmt.Sprintf("root %d", i), ID: layout.NewObjectID(layout.KindMlog, uint64(i))}
	}
	b, err := AppendRoots(nil, roots)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseRoots(b)
	if diff := cmp.Diff(roots, back); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if back, err := ParseRoots(nil); err != nil || back != nil {
		t.Errorf("no bytes: %v, %v", back, err)
	}
	for _, bad := range [][]byte{b[:len(b)-1], append(bytes.Clone(b), 0), {1}, {255, 255}} {
		if _, err := ParseRoots(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if _, err := AppendRoots(nil, make([]api.Root, api.MaxRoots+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too many: %v", err)
	}
}

func TestErrorThereAndBack(t *testing.T) {
	in := &api.Error{
		Code: api.ENOSPC, Op: "mblock alloc", Object: 7, Device: "/dev/x", Offset: 1, Want: 2, Have: 3, Longest: 4,
		Holders: []api.Holder{{PID: 1, References: 2}}, Detail: "no run is long enough", Err: errors.New("below"),
		Refusal: &api.Refusal{Class: "c", Owner: "o", Used: 1, Asked: 2, Limit: api.QuotaUnlimited},
	}
	out := NewError(fmt.Errorf("around: %w", in)).API()
	if !errors.Is(out, api.ENOSPC) || out.Error() != in.Error() {
		t.Errorf("%v\nwant %v", out, in)
	}
	out.Err, in.Err = nil, nil // of a cause the text travels
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("(-in +out):\n%s", diff)
	}
	for _, c := range []struct {
		in   error
		code api.Code
		is   error
	}{
		{context.DeadlineExceeded, api.ETIMEDOUT, context.DeadlineExceeded},
		{api.ContextError("x", context.Canceled), api.ECANCELED, context.Canceled},
		{io.ErrUnexpectedEOF, api.EIO, api.EIO},
		{api.ENOENT, api.ENOENT, api.ENOENT},
		{&api.Error{Err: api.EROFS}, api.EROFS, api.EROFS},
		{&api.Error{}, api.EIO, api.EIO},
	} {
		out := NewError(c.in).API()
		if out.Code != c.code || !errors.Is(out, c.is) {
			t.Errorf("%v came back as %v", c.in, out)
		}
	}
}

func TestBuckets(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: 0, 0: 0, 999: 0, time.Microsecond: 1, 2 * time.Microsecond: 2, 3 * time.Microsecond: 2,
		4 * time.Microsecond: 3, time.Millisecond: 10, time.Second: 20, time.Hour: NumBuckets - 1,
	} {
		if got := Bucket(d); got != want {
			t.Errorf("%v: bucket %d, want %d", d, got, want)
		}
	}
}

func TestOps(t *testing.T) {
	names := map[string]Op{}
	for op := range Op(NumOps) {
		if !op.Valid() {
			continue
		}
		if other, ok := names[op.Name()]; ok {
			t.Errorf("%d and %d are both %q", op, other, op.Name())
		}
		names[op.Name()] = op
	}
	if Op(0).Valid() || Op(NumOps).Valid() || Op(65535).Valid() {
		t.Error("numbers that are no operation's are valid")
	}
	if Op(999).Name() != "" || Op(999).String() != "op999" || Op(999).Mutates() {
		t.Error("an unknown operation has properties")
	}
}

// FuzzDecode: no bytes crash a decoder, and what is accepted comes out again as
// the same bytes.
//
// proves S43
func FuzzDecode(f *testing.F) {
	eachSample(func(_ string, h Header, m Message) {
		b, err := Append(nil, h, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil || !h.Op.Valid() {
			return
		}
		m := empty(h)
		if m == nil {
			return
		}
		if err := Decode(m, b[HeaderSize:]); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := Append(nil, h, m)
		if err != nil {
			t.Fatalf("%v: accepted, but: %v", h.Op, err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("%v: % x\ncame out as % x", h.Op, b, again)
		}
	})
}

func FuzzRoots(f *testing.F) {
	b, err := AppendRoots(nil, []api.Root{{Name: "a", ID: 1}, {Name: "b", ID: 2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		roots, err := ParseRoots(b)
		if err != nil || len(b) == 0 {
			return
		}
		again, err := AppendRoots(nil, roots)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("% x\ncame out as % x: %v", b, again, err)
		}
	})
}

func TestDefaultSocket(t *testing.T) {
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, nil, "/run/mpool/mpoold.sock"},
		{0, map[string]string{"MPOOL_SOCKET": "/x"}, "/x"},
		{1000, map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/mpool/mpoold.sock"},
		{1000, map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000", "MPOOL_SOCKET": "/x"}, "/x"},
		{1000, nil, ""},
	} {
		got, err := DefaultSocket(c.uid, func(k string) string { return c.env[k] })
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("uid %d, %v: %q, %v", c.uid, c.env, got, err)
		}
	}
}

// fullPack is as many messages of owners, as long, as go together.
func fullPack() *CreditMessage {
	m := credit.Message{Kind: credit.Return}
	for i := range uint64(packedSpans) {
		m.Credit = append(m.Credit, credit.Span{First: 2 * i, End: 2*i + 1, Modes: credit.Read})
	}
	p, _ := PackCredits(1, slices.Repeat([]credit.Message{m}, 2*MaxCredits), Features)
	return &p
}

// What goes together is what follows in the list, as much as fits; what is long goes
// alone; the order stays.
func TestPackCredits(t *testing.T) {
	short := credit.Message{Kind: credit.Return}
	long := fullPack().Message
	long.Credit = append(long.Credit, credit.Span{First: 1000, End: 1001, Modes: credit.Read})
	var list []credit.Message
	for i, m := range []credit.Message{short, short, long, long, short} {
		m.Seq = uint64(i + 1)
		list = append(list, m)
	}
	list = append(list, slices.Repeat([]credit.Message{short}, MaxCredits)...)
	var sizes []int
	seq := uint64(0)
	for left := list; len(left) > 0; {
		var m CreditMessage
		m, left = PackCredits(7, left, Features)
		sizes = append(sizes, 1+len(m.More))
		b, err := Append(nil, Header{Op: OpCredit}, &m)
		if err != nil {
			t.Fatal(err)
		}
		if n := CreditsIn(b); n != 1+len(m.More) {
			t.Errorf("a message of %d says it has %d", 1+len(m.More), n)
		}
		var back CreditMessage
		if err := Decode(&back, b[HeaderSize:]); err != nil || back.Pool != 7 {
			t.Fatal(back.Pool, err)
		}
		for c := range back.All() {
			if seq++; c.Seq != seq && seq <= 5 {
				t.Errorf("message %d comes as the %d.", c.Seq, seq)
			}
		}
	}
	if want := []int{2, 1, 1, MaxCredits, 1}; !slices.Equal(sizes, want) {
		t.Errorf("they go by %v, want %v", sizes, want)
	}
	if m, left := PackCredits(7, list, Features&^FeaturePacked); len(m.More) > 0 || len(left) != len(list)-1 {
		t.Errorf("%d go together, and %d are left, where that was not agreed", 1+len(m.More), len(left))
	}
}

// What follows the first message is of its pool and is followed by nothing of its own.
func TestCreditsThatFollow(t *testing.T) {
	b, err := Append(nil, Header{Op: OpCredit}, &CreditMessage{
		Pool: 1, Message: credit.Message{Kind: credit.Ack}, More: []credit.Message{{Kind: credit.Ack}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const second = HeaderSize + creditSize + 2
	for name, at := range map[string]int{"a pool": second, "more": second + 14, "too many": HeaderSize + 15, "a limit of none": HeaderSize + 13} {
		bad := slices.Clone(b)
		bad[at] = 1
		if err := Decode(&CreditMessage{}, bad[HeaderSize:]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a peer has not said that it knows is not to be sent to it, nor by it.
func TestCreditsAgreed(t *testing.T) {
	plain := credit.Message{Kind: credit.Refuse, Code: credit.ErrLimit}
	limited := plain
	limited.Limit = &credit.Limit{Name: "session:5"}
	for _, c := range []struct {
		m    CreditMessage
		want uint64
	}{
		{CreditMessage{Message: plain}, 0},
		{CreditMessage{Message: plain, More: []credit.Message{plain}}, FeaturePacked},
		{CreditMessage{Message: limited}, FeatureLimit},
		{CreditMessage{Message: plain, More: []credit.Message{limited}}, FeaturePacked | FeatureLimit},
	} {
		for features := range Features + 1 {
			if err := c.m.Agreed(features); errors.Is(err, ErrMalformed) != (features&c.want != c.want) {
				t.Errorf("features %x, needs %x: %v", features, c.want, err)
			}
		}
	}
}
