package credit

import (
	"slices"
	"time"
)

// recalled enters that the creditor wants something back. Who lends it on has
// less time than the creditor gives.
func (b *Book) recalled(a *account, m Message) {
	k := m.Credit.Meet(a.borrowed)
	if m.Flags&Try == 0 {
		due := time.Duration(0)
		if m.Within > 0 {
			due = b.now + m.Within - m.Within/8
		}
		if !k.Empty() {
			a.recalls = append(a.recalls, recall{k, due})
		}
		a.owed = min(a.owed+m.Amount, a.borrowed.Size())
		return
	}
	held := slices.ContainsFunc(a.holdings, func(h *holding) bool {
		return h.debtor == nil && !h.credit.Meet(k).Empty()
	})
	if held {
		b.keep(a, k)
		return
	}
	a.tried = a.tried.Join(k)
	if m.Amount > 0 {
		b.tryOwed(a, m.Amount)
	}
}

// keep tells the creditor that k is held.
func (b *Book) keep(a *account, k Credit) {
	a.tried = a.tried.Diff(k)
	b.sendUp(Message{Kind: Kept, Resource: a.res, Credit: k})
}

// tryOwed gives back what is not used of an amount, and tells that this is all.
func (b *Book) tryOwed(a *account, amount uint64) {
	if free := a.free().head(amount); !free.Empty() {
		b.giveBack(a, free)
	}
	b.sendUp(Message{Kind: Kept, Resource: a.res})
}

// yield gives back what the creditor wants and nobody holds, and calls it back
// from those who have it. In a wind-up that is everything.
func (b *Book) yield(a *account) {
	if b.closing && !a.leaving().Has(a.borrowed) {
		a.recalls = append(a.recalls, recall{a.borrowed.Diff(a.leaving()), b.due()})
	}
	if a.owed > 0 {
		b.yieldAmount(a)
	}
	for _, r := range a.recalls {
		for _, h := range slices.Clone(a.holdings) {
			k := h.credit.Meet(r.credit)
			if k.Empty() {
				continue
			}
			due := r.due
			if h.debtor == nil {
				due = 0 // the creditor keeps the time; in a wind-up, whoever waits for it
			}
			b.callBack(a, h, k, false, due)
			if !a.res.Type.keep && h.overdue(k, b.now) {
				b.take(a, h, k)
			}
		}
	}
	for _, h := range a.holdings {
		if k := h.credit.Meet(a.tried); !k.Empty() {
			b.callBack(a, h, k, true, 0)
		}
	}
	leaving := a.leaving()
	if leaving.Empty() {
		return
	}
	if b.up != nil {
		b.giveBack(a, a.unheld(leaving.Meet(a.borrowed)).Diff(a.tainted))
	}
}

// yieldAmount gives back as much as is owed and free, and calls the rest back.
func (b *Book) yieldAmount(a *account) {
	if free := a.free().head(a.owed); !free.Empty() {
		b.giveBack(a, free)
	}
	a.owed = min(a.owed, a.borrowed.Size())
	if a.owed > 0 {
		b.callBackAmount(a, &request{res: a.res, flags: MayRevoke}, a.owed)
	}
}

// giveBack returns k, which nobody has, to the creditor.
func (b *Book) giveBack(a *account, k Credit) {
	if k.Empty() {
		return
	}
	b.sendUp(Message{Kind: Return, Resource: a.res, Credit: k, Version: a.version})
	b.forget(a, k)
	if a.owed > 0 {
		a.owed -= min(a.owed, k.Size())
		a.stale = true // each debtor was called back for all of it
	}
}
