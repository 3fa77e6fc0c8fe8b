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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// samples returns one message of every form, with every field set.
func samples() map[Op][2]Message {
	const h, id = Handle(0x1122334455667788), layout.ObjectID(0x01000000000000aa)
	arena := Payload{Window: Window{Arena: 2, Offset: 8192, Length: 70000}}
	inline := InlinePayload([]byte("some bytes"))
	target := &Target{Handle: h}
	opened := &Opened{Handle: h, ID: id, Created: time.Unix(1700000000, 123000000)}
	opts := api.AllocOptions{
		Class: api.ClassStaging, Fallback: true, Capacity: 32 << 20, Owner: 7, Tag: 0xfeed, UseSpare: true,
	}
	drives := []api.DriveInfo{
		{
			Path: "/dev/sda", UUID: "11111111-2222-3333-4444-555555555555", Slot: 3, Class: api.ClassCapacity,
			State: "online", Size: 1 << 40, Free: 1 << 39, Engine: "io_uring", SectorSize: 4096,
		},
		{Path: "/dev/sdb", State: "missing", Class: api.ClassStaging},
	}
	info := api.PoolInfo{
		Name: "data", UUID: "u", Label: "a label", State: "active", Health: "optimal", ZoneSize: 1 << 20,
		Space:  api.Space{Total: 1, Free: 2, Live: 3, Uncommitted: 4, Draining: 5, Spare: 6, Overhead: 7, Remainder: 8},
		Stored: 9, Mblocks: 10, Mlogs: 11, Drives: drives, UID: 12, GID: 13, Mode: 0o640, Spare: 5, Epoch: 14, Verify: true,
	}
	object := api.ObjectInfo{
		ID: id, Kind: layout.KindMlog, State: api.StateCommitted, Class: api.ClassStaging, Length: 1, Capacity: 2,
		Used: 3, Owner: 4, Tag: 5, Refs: 6, Created: time.Unix(1700000000, 123456789), Generation: 7, Records: 8,
		Partner: id + 1,
	}
	op := OpCounters{Op: OpMblockRead, Count: 1, Errors: 2, Bytes: 3, Total: 4}
	for i := range op.Buckets {
		op.Buckets[i] = uint64(i)
	}
	root := api.Root{Name: "head", ID: id}
	quotas := &QuotaPage{
		More:    true,
		Classes: []api.QuotaClass{{Name: "storage", Bytes: true, Total: -1, Default: 20e12, Min: 1, Max: -1, Step: 4096, BuiltIn: true}},
		Limits:  []api.QuotaLimit{{Owner: "john", Class: "storage", Limit: 5}},
		Usage:   []api.QuotaUsage{{Class: "storage", Owner: "john", Held: 3, Reserved: 4, Limit: -1, Origin: "default"}},
		Claims: []api.QuotaClaim{
			{ID: "0000000000000005", Parent: "0000000000000003", Owner: "john", State: "reserved", Expires: time.UnixMilli(1767225600123).UTC(), Amounts: []api.QuotaAmount{{Class: "storage", N: 1e12}}},
			{ID: "0000000000000006", Owner: "john", State: "held", Real: "cinder-1-uuid"},
		},
	}
	borrow := credit.Message{
		Kind: credit.Borrow, Session: 1, Key: 2, Seq: 3, Ack: 4, Seen: 5,
		Resource: credit.Resource{Type: credit.Access, ID: uint64(id)}, Request: 6,
		Credit: credit.Make(
			credit.Span{First: 0, End: 4096, Modes: credit.Read},
			credit.Span{First: 4096, End: credit.End, Modes: credit.Read | credit.Append},
		),
		Amount: 7, Least: 8, Flags: credit.MayBorrow | credit.MayRevoke | credit.Try,
	}
	grant := credit.Message{
		Kind: credit.Grant, Session: 1, Key: 2, Seq: 3, Ack: 4,
		Resource: credit.Resource{Type: credit.Access, ID: uint64(id)}, Request: 6,
		Credit: credit.Make(credit.Span{First: 0, End: 4096, Modes: credit.Delete}),
		Code:   credit.ErrLimit, Token: credit.Token{9, 10, 11, 12}, Version: credit.Version{13, 14}, Within: 15, Sent: 16, Level: 2,
	}
	return map[Op][2]Message{
		OpHello: {
			&Hello{MinVersion: 1, MaxVersion: 2, Features: 3},
			&HelloReply{Version: 1, Features: 2, MaxRequests: 3, MaxHandles: 4, MaxArenas: 5, ArenaDefault: 6, ArenaTotal: 7, Instance: 8, Session: 9},
		},
		OpCancel:      {&Cancel{Tag: 9}, nil},
		OpArena:       {&ArenaAsk{Size: 8 << 20}, &ArenaReply{Arena: 1, Size: 8 << 20}},
		OpArenaMapped: {&ArenaMapped{Arena: 1}, &Empty{}},
		OpClose:       {target, &Empty{}},
		OpVersion:     {&Empty{}, &VersionReply{Daemon: "v1", Go: "go1", Protocol: 1, PID: 42}},
		OpStat: {
			&StatAsk{Pool: "data", FirstOp: 1, FirstDrive: 2},
			&StatReply{
				Uptime: 1, Sessions: 2, Handles: 3, Reaped: 4, NextOp: 5, NextDrive: 6, Arenas: 7, Huge: 8, Ops: []OpCounters{op},
				Drives: []DriveCounters{{
					Path: "/dev/sda", Reads: 1, Writes: 2, Flushes: 3, Discards: 4, ReadBytes: 5, WriteBytes: 6,
					Errors: 7, FlushFailures: 8,
				}},
			},
		},
		OpRing:      {&RingAsk{Version: 1, Arena: 2, Offset: 8192, Entries: 256}, &RingReply{Ring: 3}},
		OpRingClose: {&RingClose{Ring: 3}, &Empty{}},
		OpPoolCreate: {
			&PoolCreate{Name: "data", Devices: []string{"/a", "/b"}, Options: api.CreateOptions{
				ZoneSize: 1 << 16, Staging: []string{"/c"}, UID: 1, GID: 2, Mode: 0o600, Label: "l",
				Force: true, DryRun: true, NoActivate: true,
			}},
			&PoolCreateReply{Result: api.CreateResult{
				Name: "data", UUID: "u", ZoneSize: 1, OverheadBytes: 2, UsableBytes: 3, Drives: drives,
			}},
		},
		OpPoolActivate: {
			&PoolActivate{Name: "data", Devices: []string{"/a"}, Options: api.ActivateOptions{Force: true, Resize: true}},
			&PoolReply{Info: info, More: true},
		},
		OpPoolDeactivate: {&PoolName{Name: "data"}, &Empty{}},
		OpPoolDestroy:    {&PoolName{Name: "data"}, &Empty{}},
		OpPoolRename:     {&PoolRename{Name: "data", NewName: "other"}, &Empty{}},
		OpPoolSet: {
			&PoolSet{Name: "data", Settings: api.PoolSettings{
				UID: new(uint32(1)), GID: new(uint32(2)), Mode: new(uint32(3)), Label: new("l"),
				ReadVerify: new(true), SparePercent: new(uint8(4)), Shared: new(true),
			}},
			&Empty{},
		},
		OpPoolList: {&PoolName{Name: "a"}, &PoolListReply{Names: []string{"b", "c"}, More: true}},
		OpPoolShow: {&PoolShow{Pool: h, FirstDrive: 64, Name: "data"}, &PoolReply{Info: info}},
		OpPoolOpen: {&PoolName{Name: "data"}, &Opened{Handle: h}},
		OpPoolScrub: {
			&PoolScrub{Name: "data", From: api.ScrubCursor{Object: id, Place: 1 << 40}, Bytes: 8 << 20},
			&PoolScrubReply{Step: api.ScrubStep{
				Next: api.ScrubCursor{Object: id + 1, Place: 7}, Done: true, Verified: 1, Covered: 2, Total: 3, Objects: 4, Skipped: 5,
				Problems: []api.ScrubProblem{{Object: id, Device: "/dev/sda", Offset: 4096, Code: api.ECORRUPT, Text: "wrong"}},
			}},
		},

		OpClientList: {&ClientList{After: 1, PID: 2}, &ClientsReply{Clients: []ClientInfo{{
			Session: 1, PID: 2, UID: 3, GID: 4, Comm: "c", Connected: time.Unix(5, 6).UTC(), Handles: 7,
			Uncommitted: 8, Mblocks: 9, InFlight: 10, Requests: 11, Memory: 12,
		}}, More: true}},
		OpHandleList: {
			&HandlesAsk{AfterSession: 1, AfterHandle: h, PID: 2, Pool: "data"},
			&HandlesReply{Handles: []HandleInfo{{
				Session: 1, PID: 2, Handle: h, Kind: HandleMlog, Pool: "data", Object: id, Refs: 3, State: api.StateUncommitted, Granted: true,
			}}, More: true},
		},
		OpScopeList: {
			&ScopesAsk{After: "client:0/1", Name: "system"},
			&ScopesReply{Entries: []ScopeInfo{{
				Scope: "system", Kind: "memory", Used: 1, Limit: "unlimited", Origin: "file", Refused: 2,
			}}, More: true},
		},
		OpScopeSet: {
			&ScopeSet{Name: "client", Limits: []ScopeLimit{{"memory", "5%"}, {"tasks", "default"}}},
			&ScopesReply{Entries: []ScopeInfo{{Scope: "client", Kind: "tasks", Limit: "3", Origin: "set"}}},
		},
		OpEventNext: {
			&EventNext{After: 1, Since: time.Unix(2, 3).UTC(), Wait: 4},
			&EventsReply{Last: 5, Missed: 6, Events: []Event{{
				Seq: 1, Time: time.Unix(2, 3).UTC(), Type: EventClientReaped, Pool: "data", Object: id, Device: "/d",
				Offset: 4, Text: "t", Session: 5, PID: 6, UID: 7, Comm: "c", Cause: CauseSignal, Code: 8, Signal: 9,
				Core: true, DetectedBy: SourcePidfd, Aborted: 10, References: 11, Reservations: 12, Credits: 13, Latency: 14,
				Exit: 15, Free: 16,
			}}},
		},

		OpObjectInfo:   {target, &ObjectReply{Info: object}},
		OpObjectGet:    {target, opened},
		OpObjectCommit: {target, &Empty{}},
		OpObjectAbort:  {target, &Empty{}},
		OpObjectDelete: {target, &Empty{}},
		OpCommitMany:   {&CommitMany{Pool: h, Objects: []Handle{1, 2, h}, Roots: inline}, &Empty{}},
		OpListOpen: {
			&ListOpen{Pool: h, Filter: api.Filter{
				Kind: layout.KindMblock, Owner: new(uint32(1)), Tag: new(uint64(2)), State: api.StateUncommitted,
			}},
			opened,
		},
		OpListNext: {target, &ListReply{Objects: []api.ObjectInfo{object, {ID: id}}, More: true}},

		OpRootsSet:  {&RootsSet{Pool: h, Roots: arena}, &Empty{}},
		OpRootsList: {&RootsList{Pool: h, After: "a"}, &RootsReply{Roots: []api.Root{root}, More: true}},
		OpOwnerAdd:  {&OwnerAdd{Pool: h, Parent: 1, Name: "team"}, &OwnerAdded{Index: 2}},
		OpOwnerList: {&OwnerList{Pool: h, From: 3}, &OwnersReply{Owners: []api.Owner{{Index: 3, Parent: 1, Name: "team"}}, More: true}},

		OpQuotaShow: {&QuotaShow{Pool: h, What: QuotaShowClaims, From: 64, Owner: "team/john"}, quotas},
		OpQuotaSet: {
			&QuotaSet{Pool: h, Verb: QuotaDefine, Class: quotas.Classes[0], Limit: quotas.Limits[0]},
			&Empty{},
		},
		OpQuotaClaim: {
			&QuotaClaim{
				Pool: h, Verb: QuotaResize, TTL: 90 * time.Second, Ref: "0000000000000005", Owner: "john", Real: "cinder-1-uuid",
				Request: "r-1", Amounts: quotas.Claims[0].Amounts,
			},
			&QuotaPage{Claims: quotas.Claims[:1]},
		},

		OpMblockAlloc: {&Alloc{Pool: h, ID: id, Options: opts}, opened},
		OpMblockFind:  {&Find{Pool: h, ID: id}, opened},
		OpMblockWrite: {&MblockWrite{Mblock: h, Total: 1 << 30, Data: inline}, &MblockWritten{N: 10}},
		OpMblockRead: {
			&MblockRead{Mblock: h, Offset: 4096, Into: arena.Window},
			&MblockReadReply{N: 3, EOF: true, Data: []byte("abc")},
		},

		OpMblockPut: {&MblockPut{Pool: h, Options: opts, Data: inline}, opened},

		OpMlogAlloc:      {&Alloc{Pool: h, Options: opts}, opened},
		OpMlogFind:       {&Find{Pool: h, ID: id}, opened},
		OpMlogOpenAppend: {target, &AppenderOpened{Appender: h, Records: 1, Bytes: 2}},
		OpMlogOpenRead:   {target, opened},
		OpMlogErase:      {&MlogErase{Mlog: h, MinGeneration: 9}, &Empty{}},
		OpAppend:         {&AppendRecord{To: h, Sync: true, Data: arena}, &Appended{Record: 1, Records: 2, Bytes: 3}},
		OpSync:           {target, &Empty{}},
		OpReadNext: {
			&ReadNext{Reader: h, Rewind: true, Into: Window{Length: 4096}},
			&ReadNextReply{N: 70000, Next: 5},
		},
		OpReadSeek: {&ReadSeek{Reader: h, Record: 5, Rewind: true}, &Empty{}},

		OpGrant: {
			&Grant{Object: h, TTL: 90 * time.Second},
			&Granted{Token: api.Token{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		},
		OpRevoke: {target, &Empty{}},
		OpAccept: {&Accept{Pool: h, Token: api.Token{15: 0xff}}, opened},

		OpCredit: {
			&CreditMessage{Pool: h, Message: borrow}, &CreditMessage{Pool: h, Message: grant},
		},
		OpCreditList: {
			&CreditList{After: CreditCursor{Object: id, Holder: 1, First: 4096}, Pool: "data"},
			&CreditsReply{More: true, Credits: []CreditInfo{{
				CreditCursor: CreditCursor{Object: id, Holder: 1, First: 4096}, End: credit.End, Modes: credit.Read | credit.Append,
				State: CreditCalledBack, Session: 2, PID: 3, UID: 4, Token: credit.Token{5, 6, 7, 8}, Expires: time.Unix(9, 10).UTC(),
			}}},
		},
		OpCreditRevoke: {&Find{Pool: h, ID: id}, &Empty{}},

		OpMDCCreate:        {&Alloc{Pool: h, Options: opts}, &MDCCreated{ID: id}},
		OpMDCOpen:          {&Find{Pool: h, ID: id}, opened},
		OpMDCDelete:        {&Find{Pool: h, ID: id}, &Empty{}},
		OpMDCAppend:        {&AppendRecord{To: h, Data: inline}, &Empty{}},
		OpMDCSync:          {target, &Empty{}},
		OpMDCOpenRead:      {target, &Opened{Handle: h}},
		OpMDCCompactStart:  {target, &Empty{}},
		OpMDCCompactAppend: {&AppendRecord{To: h, Data: inline}, &Empty{}},
		OpMDCCompactEnd:    {target, &Empty{}},
		OpMDCCompactAbort:  {target, &Empty{}},
		OpMDCUsage:         {target, &MDCUsage{Used: 1, Capacity: 2}},
	}
}

func sampleError() *Error {
	return &Error{
		Code: api.EBUSY, Op: "mblock delete", Object: 0x01000000000000aa, Device: "/dev/sda", Offset: -1,
		Want: 2, Have: 3, Longest: 4, Holders: []api.Holder{{PID: 5, References: 6}, {PID: -1}},
		Detail: "others hold it", Cause: "because",
	}
}

// eachSample calls fn for every message there is, with a name for it.
func eachSample(fn func(name string, h Header, m Message)) {
	table := samples()
	for op := range Op(NumOps) {
		if !op.Valid() {
			continue
		}
		file := fmt.Sprintf("%02d-%s", uint16(op), strings.ReplaceAll(op.Name(), " ", "-"))
		pair := table[op]
		fn(file+".request", Header{Op: op, Tag: 0x0102030405060708, Deadline: 1500}, pair[0])
		if op.NewReply() != nil {
			fn(file+".reply", Header{Op: op, Flags: FlagReply, Tag: 77}, pair[1])
		}
	}
	fn("error", Header{Op: OpObjectDelete, Flags: FlagReply | FlagError, Tag: 78}, sampleError())
	e := &Error{Code: api.EDQUOT, Op: "mblock alloc", Want: 2, Detail: "it does not fit"}
	e.Refusal = &api.Refusal{Class: "mpool.mblocks", Owner: "team/ann", Used: 9, Asked: 2, Limit: 10}
	fn("error-refusal", Header{Op: OpMblockAlloc, Flags: FlagReply | FlagError, Tag: 79}, e)
}

func empty(h Header) Message {
	switch {
	case h.Flags&FlagError != 0:
		return new(Error)
	case h.Flags&FlagReply != 0:
		return h.Op.NewReply()
	}
	return h.Op.NewRequest()
}

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
