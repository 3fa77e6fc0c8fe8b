package ioctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

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
	refuse := credit.Message{
		Kind: credit.Refuse, Session: 1, Key: 2, Seq: 4, Ack: 4, Request: 7, Code: credit.ErrLimit,
		Limit: &credit.Limit{Kind: "memory", Name: "session:5", Used: 6, Asked: 7, Limit: 8, Text: "no more"},
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
			&CreditMessage{Pool: h, Message: borrow, More: []credit.Message{{Kind: credit.Ack, Session: 7}, borrow}},
			&CreditMessage{Pool: h, Message: grant, More: []credit.Message{grant, refuse}},
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
