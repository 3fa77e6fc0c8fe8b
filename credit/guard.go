package credit

// Guard stands where the work on resources is done and refuses tokens of
// credits that were taken from their holders. It knows nothing of who holds
// what: only which atoms need at least which token. It is not safe for
// concurrent use. The zero Guard admits everything.
type Guard struct {
	floors map[Resource][]floor
}

// floor is atoms and the oldest token that is good for them. The floors of a
// resource do not meet.
type floor struct {
	credit Credit
	token  Token
}

// Raise refuses from now on tokens older than t for the atoms c of r. A floor is
// never lowered.
func (g *Guard) Raise(r Resource, c Credit, t Token) {
	if g.floors == nil {
		g.floors = map[Resource][]floor{}
	}
	kept := g.floors[r][:0]
	for _, f := range g.floors[r] {
		if f.token.Compare(t) >= 0 {
			c = c.Diff(f.credit)
		} else {
			f.credit = f.credit.Diff(c)
		}
		if !f.credit.Empty() {
			kept = append(kept, f)
		}
	}
	if !c.Empty() {
		kept = append(kept, floor{c, t})
	}
	g.floors[r] = kept
}

// Check returns nil if work on r that needs the atoms c may be done under the
// token t, else an error that is [ErrStale].
func (g *Guard) Check(r Resource, c Credit, t Token) error {
	for _, f := range g.floors[r] {
		if t.Compare(f.token) < 0 && !f.credit.Meet(c).Empty() {
			return &Error{
				Code: ErrStale, Op: "use", Resource: r,
				Detail: "the credit with token " + t.String() + " was taken from its holder, token " + f.token.String() +
					" or later is needed: acquire it anew",
			}
		}
	}
	return nil
}

// Forget drops what is known of r, which exists no more and will not again.
func (g *Guard) Forget(r Resource) { delete(g.floors, r) }
