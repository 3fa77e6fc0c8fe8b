package credit

// Hold is a credit that its user holds: it is not taken while others can wait,
// and goes to the next when it is released. Its methods are safe for concurrent
// use.
type Hold struct {
	o        *Owner
	id       uint64
	resource Resource
	credit   Credit
	token    Token
	version  Version

	taken    func()        // the request's Lost
	wanted   chan struct{} // guarded by o.mu
	lost     chan struct{} // the same
	isWanted bool          // the same
	isLost   bool          // the same
}

// Resource returns what the credit is for.
func (h *Hold) Resource() Resource { return h.resource }

// Credit returns what is held; of a divisible type, which positions.
func (h *Hold) Credit() Credit { return h.credit }

// Token returns what to show where the work is done.
func (h *Hold) Token() Token { return h.token }

// Version returns which contents the resource had when the credit was granted. A
// copy of an equal version, other than the zero version, is good as long as the
// credit is held or cached.
func (h *Hold) Version() Version { return h.version }

// Valid says whether the credit may be used now. With leases it may be over by
// the clock before anybody could say so: ask before each use. Work that takes
// longer than the margin of the lease, or is done by others, is checked by its
// token.
func (h *Hold) Valid() bool {
	h.o.mu.Lock()
	defer h.o.mu.Unlock()
	return !h.isLost && h.o.holds[h.id] == h && h.o.book.Usable(h.o.opt.Now())
}

// Wanted is closed when somebody waits for what is held. The call-back's deadline
// runs. When all who waited have given up it returns another channel, which is
// open.
func (h *Hold) Wanted() <-chan struct{} {
	h.o.mu.Lock()
	defer h.o.mu.Unlock()
	if h.wanted == nil {
		h.wanted = make(chan struct{})
		if h.isWanted {
			close(h.wanted)
		}
	}
	return h.wanted
}

// Lost is closed when the credit was taken or its lease has ended.
func (h *Hold) Lost() <-chan struct{} {
	h.o.mu.Lock()
	defer h.o.mu.Unlock()
	if h.lost == nil {
		h.lost = make(chan struct{})
		if h.isLost {
			close(h.lost)
		}
	}
	return h.lost
}

// Release ends the hold. What is under way under it must have ended. The version
// is what its user has made of the resource, or zero if nothing. It returns
// ErrStale if the credit was lost before, and ErrInvalid if it was released.
func (h *Hold) Release(made Version) error {
	o := h.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return &Error{Code: ErrClosed, Op: "release", Owner: o.opt.ID, Resource: h.resource, Detail: "the owner has ended, and the hold with it"}
	}
	err := o.book.Release(o.opt.Now(), h.id, made)
	o.absorb()
	delete(o.holds, h.id)
	return err
}

// lose notes that the credit is lost. The caller holds o.mu.
func (h *Hold) lose() {
	if !h.isLost {
		h.isLost = true
		tell(h.lost)
	}
}
