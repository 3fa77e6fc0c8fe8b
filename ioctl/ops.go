package ioctl

import "fmt"

// Op is an operation's number. Numbers are never given a second meaning.
type Op uint16

// The operations.
const (
	OpHello       Op = 1
	OpCancel      Op = 2
	OpArena       Op = 3
	OpArenaMapped Op = 4
	OpClose       Op = 5
	OpVersion     Op = 6
	OpStat        Op = 7
	OpRing        Op = 8
	OpRingClose   Op = 9

	OpPoolCreate     Op = 10
	OpPoolActivate   Op = 11
	OpPoolDeactivate Op = 12
	OpPoolDestroy    Op = 13
	OpPoolRename     Op = 14
	OpPoolSet        Op = 15
	OpPoolList       Op = 16
	OpPoolShow       Op = 17
	OpPoolOpen       Op = 18
	OpPoolScrub      Op = 19

	OpClientList Op = 20
	OpHandleList Op = 21
	OpEventNext  Op = 22
	OpScopeList  Op = 23
	OpScopeSet   Op = 24

	OpObjectInfo   Op = 30
	OpObjectGet    Op = 31
	OpObjectCommit Op = 32
	OpObjectAbort  Op = 33
	OpObjectDelete Op = 34
	OpCommitMany   Op = 35
	OpListOpen     Op = 36
	OpListNext     Op = 37

	OpRootsSet   Op = 40
	OpRootsList  Op = 41
	OpOwnerAdd   Op = 42
	OpOwnerList  Op = 43
	OpQuotaShow  Op = 44
	OpQuotaSet   Op = 45
	OpQuotaClaim Op = 46

	OpMblockAlloc Op = 50
	OpMblockFind  Op = 51
	OpMblockWrite Op = 52
	OpMblockRead  Op = 53
	OpMblockPut   Op = 54

	OpMlogAlloc      Op = 60
	OpMlogFind       Op = 61
	OpMlogOpenAppend Op = 62
	OpMlogOpenRead   Op = 63
	OpMlogErase      Op = 64
	OpAppend         Op = 65
	OpSync           Op = 66
	OpReadNext       Op = 67
	OpReadSeek       Op = 68

	OpGrant  Op = 70
	OpRevoke Op = 71
	OpAccept Op = 72

	OpMDCCreate        Op = 80
	OpMDCOpen          Op = 81
	OpMDCDelete        Op = 82
	OpMDCAppend        Op = 83
	OpMDCSync          Op = 84
	OpMDCOpenRead      Op = 85
	OpMDCCompactStart  Op = 86
	OpMDCCompactAppend Op = 87
	OpMDCCompactEnd    Op = 88
	OpMDCCompactAbort  Op = 89
	OpMDCUsage         Op = 90

	OpCredit       Op = 91
	OpCreditList   Op = 92
	OpCreditRevoke Op = 93
)

// NumOps is above every operation's number.
const NumOps = 96

// opInfo says what an operation is.
type opInfo struct {
	name    string
	request func() Message
	reply   func() Message
	mutates bool // a lost answer means an unknown outcome
}

func of[T any, M interface {
	*T
	Message
}]() Message {
	return M(new(T))
}

const (
	asks    = false
	mutates = true
)

// opTable is never written.
var opTable = [NumOps]opInfo{
	OpHello:       {"hello", of[Hello], of[HelloReply], asks},
	OpCancel:      {"cancel", of[Cancel], nil, asks},
	OpArena:       {"arena create", of[ArenaAsk], of[ArenaReply], asks},
	OpArenaMapped: {"arena mapped", of[ArenaMapped], of[Empty], asks},
	OpClose:       {"close", of[Target], of[Empty], asks},
	OpVersion:     {"version", of[Empty], of[VersionReply], asks},
	OpStat:        {"stat", of[StatAsk], of[StatReply], asks},
	OpRing:        {"ring create", of[RingAsk], of[RingReply], asks},
	OpRingClose:   {"ring close", of[RingClose], of[Empty], asks},

	OpPoolCreate:     {"pool create", of[PoolCreate], of[PoolCreateReply], mutates},
	OpPoolActivate:   {"pool activate", of[PoolActivate], of[PoolReply], mutates},
	OpPoolDeactivate: {"pool deactivate", of[PoolName], of[Empty], mutates},
	OpPoolDestroy:    {"pool destroy", of[PoolName], of[Empty], mutates},
	OpPoolRename:     {"pool rename", of[PoolRename], of[Empty], mutates},
	OpPoolSet:        {"pool set", of[PoolSet], of[Empty], mutates},
	OpPoolList:       {"pool list", of[PoolName], of[PoolListReply], asks},
	OpPoolShow:       {"pool show", of[PoolShow], of[PoolReply], asks},
	OpPoolOpen:       {"pool open", of[PoolName], of[Opened], asks},
	OpPoolScrub:      {"pool scrub", of[PoolScrub], of[PoolScrubReply], asks},

	OpClientList: {"client list", of[ClientList], of[ClientsReply], asks},
	OpHandleList: {"handle list", of[HandlesAsk], of[HandlesReply], asks},
	OpScopeList:  {"scope list", of[ScopesAsk], of[ScopesReply], asks},
	OpScopeSet:   {"scope set", of[ScopeSet], of[ScopesReply], asks}, // twice is as once
	OpEventNext:  {"event next", of[EventNext], of[EventsReply], asks},

	OpObjectInfo:   {"object info", of[Target], of[ObjectReply], asks},
	OpObjectGet:    {"object get", of[Target], of[Opened], asks},
	OpObjectCommit: {"object commit", of[Target], of[Empty], mutates},
	OpObjectAbort:  {"object abort", of[Target], of[Empty], mutates},
	OpObjectDelete: {"object delete", of[Target], of[Empty], mutates},
	OpCommitMany:   {"commit many", of[CommitMany], of[Empty], mutates},
	OpListOpen:     {"object list", of[ListOpen], of[Opened], asks},
	OpListNext:     {"object list next", of[Target], of[ListReply], asks},

	OpRootsSet:  {"root set", of[RootsSet], of[Empty], mutates},
	OpRootsList: {"root list", of[RootsList], of[RootsReply], asks},
	OpOwnerAdd:  {"owner add", of[OwnerAdd], of[OwnerAdded], mutates},
	OpOwnerList: {"owner list", of[OwnerList], of[OwnersReply], asks},

	OpQuotaShow:  {"quota show", of[QuotaShow], of[QuotaPage], asks},
	OpQuotaSet:   {"quota set", of[QuotaSet], of[Empty], mutates},
	OpQuotaClaim: {"quota claim", of[QuotaClaim], of[QuotaPage], mutates},

	OpMblockAlloc: {"mblock alloc", of[Alloc], of[Opened], asks},
	OpMblockFind:  {"mblock find", of[Find], of[Opened], asks},
	OpMblockWrite: {"mblock write", of[MblockWrite], of[MblockWritten], mutates},
	OpMblockRead:  {"mblock read", of[MblockRead], of[MblockReadReply], asks},
	OpMblockPut:   {"mblock put", of[MblockPut], of[Opened], mutates},

	OpMlogAlloc:      {"mlog alloc", of[Alloc], of[Opened], asks},
	OpMlogFind:       {"mlog find", of[Find], of[Opened], asks},
	OpMlogOpenAppend: {"mlog open", of[Target], of[AppenderOpened], asks},
	OpMlogOpenRead:   {"mlog open for read", of[Target], of[Opened], asks},
	OpMlogErase:      {"mlog erase", of[MlogErase], of[Empty], mutates},
	OpAppend:         {"mlog append", of[AppendRecord], of[Appended], mutates},
	OpSync:           {"mlog sync", of[Target], of[Empty], mutates},
	OpReadNext:       {"mlog read", of[ReadNext], of[ReadNextReply], asks},
	OpReadSeek:       {"mlog seek", of[ReadSeek], of[Empty], asks},

	OpGrant:  {"object grant", of[Grant], of[Granted], mutates},
	OpRevoke: {"object revoke", of[Target], of[Empty], mutates},
	OpAccept: {"object accept", of[Accept], of[Opened], mutates},

	OpMDCCreate:        {"mdc create", of[Alloc], of[MDCCreated], mutates},
	OpMDCOpen:          {"mdc open", of[Find], of[Opened], asks},
	OpMDCDelete:        {"mdc delete", of[Find], of[Empty], mutates},
	OpMDCAppend:        {"mdc append", of[AppendRecord], of[Empty], mutates},
	OpMDCSync:          {"mdc sync", of[Target], of[Empty], mutates},
	OpMDCOpenRead:      {"mdc open for read", of[Target], of[Opened], asks},
	OpMDCCompactStart:  {"mdc compact start", of[Target], of[Empty], mutates},
	OpMDCCompactAppend: {"mdc compact append", of[AppendRecord], of[Empty], mutates},
	OpMDCCompactEnd:    {"mdc compact end", of[Target], of[Empty], mutates},
	OpMDCCompactAbort:  {"mdc compact abort", of[Target], of[Empty], mutates},
	OpMDCUsage:         {"mdc usage", of[Target], of[MDCUsage], asks},

	OpCredit:       {"credit", of[CreditMessage], of[CreditMessage], asks}, // the latter answers nothing
	OpCreditList:   {"credit list", of[CreditList], of[CreditsReply], asks},
	OpCreditRevoke: {"credit revoke", of[Find], of[Empty], asks}, // twice is as once
}

// Valid says whether op is an operation of this version.
func (op Op) Valid() bool { return op < NumOps && opTable[op].name != "" }

// Name returns the operation's name, such as "mblock write", or "".
func (op Op) Name() string {
	if !op.Valid() {
		return ""
	}
	return opTable[op].name
}

func (op Op) String() string {
	if s := op.Name(); s != "" {
		return s
	}
	return fmt.Sprintf("op%d", uint16(op))
}

// Mutates says whether the outcome of the operation is unknown when its answer
// is lost. What the others do is undone when the session ends, or is nothing.
func (op Op) Mutates() bool { return op.Valid() && opTable[op].mutates }

// NewRequest returns an empty request of a valid operation, to decode into.
func (op Op) NewRequest() Message { return opTable[op].request() }

// NewReply returns an empty reply, to decode into; nil for OpCancel, which has
// none.
func (op Op) NewReply() Message {
	if f := opTable[op].reply; f != nil {
		return f()
	}
	return nil
}
