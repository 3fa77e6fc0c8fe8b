package server

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// handler does one operation.
type handler struct {
	run func(*request, ioctl.Message) (ioctl.Message, error)
	// outlives says that the operation, once begun, runs to its end although
	// its session has ended: half of it would be of no use to anybody.
	outlives bool
}

// on makes a handler of a function of one kind of request.
func on[M ioctl.Message](f func(*request, M) (ioctl.Message, error)) handler {
	return handler{run: func(r *request, m ioctl.Message) (ioctl.Message, error) {
		q, ok := m.(M)
		if !ok {
			panic("server: a handler of another request")
		}
		return f(r, q)
	}}
}

func onToTheEnd[M ioctl.Message](f func(*request, M) (ioctl.Message, error)) handler {
	h := on(f)
	h.outlives = true
	return h
}

// handlers has one for every operation but hello, cancel and credit, which the
// reader does. It is never written.
var handlers = [ioctl.NumOps]handler{
	ioctl.OpArena:       on(arenaAsk),
	ioctl.OpArenaMapped: on(arenaMapped),
	ioctl.OpClose:       on(closeHandle),
	ioctl.OpVersion:     on(version),
	ioctl.OpStat:        on(stat),
	ioctl.OpRing:        on(ringAsk),
	ioctl.OpRingClose:   on(ringClose),

	ioctl.OpPoolCreate:     onToTheEnd(poolCreate),
	ioctl.OpPoolActivate:   onToTheEnd(poolActivate),
	ioctl.OpPoolDeactivate: onToTheEnd(poolDeactivate),
	ioctl.OpPoolDestroy:    onToTheEnd(poolDestroy),
	ioctl.OpPoolRename:     onToTheEnd(poolRename),
	ioctl.OpPoolSet:        onToTheEnd(poolSet),
	ioctl.OpPoolList:       on(poolList),
	ioctl.OpPoolShow:       on(poolShow),
	ioctl.OpPoolOpen:       on(poolOpen),
	ioctl.OpPoolScrub:      on(poolScrub),

	ioctl.OpClientList: on(clientList),
	ioctl.OpHandleList: on(handleList),
	ioctl.OpEventNext:  on(eventNext),
	ioctl.OpScopeList:  on(scopeList),
	ioctl.OpScopeSet:   on(scopeSet),

	ioctl.OpObjectInfo:   on(objectInfo),
	ioctl.OpObjectGet:    on(objectGet),
	ioctl.OpObjectCommit: onToTheEnd(objectCommit),
	ioctl.OpObjectAbort:  onToTheEnd(objectAbort),
	ioctl.OpObjectDelete: onToTheEnd(objectDelete),
	ioctl.OpCommitMany:   onToTheEnd(commitMany),
	ioctl.OpListOpen:     on(listOpen),
	ioctl.OpListNext:     on(listNext),

	ioctl.OpRootsSet:  onToTheEnd(rootsSet),
	ioctl.OpRootsList: on(rootsList),
	ioctl.OpOwnerAdd:  onToTheEnd(ownerAdd),
	ioctl.OpOwnerList: on(ownerList),

	ioctl.OpQuotaShow:  on(quotaShow),
	ioctl.OpQuotaSet:   onToTheEnd(quotaSet),
	ioctl.OpQuotaClaim: onToTheEnd(quotaClaim),

	ioctl.OpMblockAlloc: on(mblockAlloc),
	ioctl.OpMblockFind:  on(mblockFind),
	ioctl.OpMblockWrite: on(mblockWrite),
	ioctl.OpMblockRead:  on(mblockRead),
	ioctl.OpMblockPut:   onToTheEnd(mblockPut),

	ioctl.OpMlogAlloc:      on(mlogAlloc),
	ioctl.OpMlogFind:       on(mlogFind),
	ioctl.OpMlogOpenAppend: on(mlogOpenAppend),
	ioctl.OpMlogOpenRead:   on(mlogOpenRead),
	ioctl.OpMlogErase:      onToTheEnd(mlogErase),
	ioctl.OpAppend:         on(appendRecord),
	ioctl.OpSync:           on(appenderSync),
	ioctl.OpReadNext:       on(readNext),
	ioctl.OpReadSeek:       on(readSeek),

	ioctl.OpGrant:  on(objectGrant),
	ioctl.OpRevoke: on(objectRevoke),
	ioctl.OpAccept: on(objectAccept),

	ioctl.OpMDCCreate:        onToTheEnd(mdcCreate),
	ioctl.OpMDCOpen:          on(mdcOpen),
	ioctl.OpMDCDelete:        onToTheEnd(mdcDelete),
	ioctl.OpMDCAppend:        on(mdcAppend),
	ioctl.OpMDCSync:          on(ofMDC(api.MDC.Sync)),
	ioctl.OpMDCOpenRead:      on(mdcOpenRead),
	ioctl.OpMDCCompactStart:  on(ofMDC(api.MDC.CompactStart)),
	ioctl.OpMDCCompactAppend: on(mdcCompactAppend),
	ioctl.OpMDCCompactEnd:    onToTheEnd(ofMDC(api.MDC.CompactEnd)),
	ioctl.OpMDCCompactAbort:  onToTheEnd(ofMDC(api.MDC.CompactAbort)),
	ioctl.OpMDCUsage:         on(mdcUsage),

	ioctl.OpCreditList:   on(creditList),
	ioctl.OpCreditRevoke: on(creditRevoke),
}
