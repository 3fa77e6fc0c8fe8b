package credit

// Reconnect gives the owner another connection. If the one before has ended by
// itself and this is to the same creditor, the owner keeps what its lease covers;
// else it starts with nothing. It fails with ErrBusy if another call was faster.
func (o *Owner) Reconnect(e Engine) error {
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		return &Error{Code: ErrClosed, Op: "connect", Owner: o.opt.ID, Detail: "the owner has ended"}
	}
	old := o.up
	o.up = nil
	if old != nil {
		o.book.leave(o.opt.Now())
		o.absorb()
	}
	o.mu.Unlock()
	if old != nil {
		old.link.Close()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.up != nil {
		return &Error{
			Code: ErrBusy, Op: "connect", Owner: o.opt.ID,
			Detail: "the owner was connected by another call meanwhile: use that connection, or call again",
		}
	}
	if err := o.connect(e); err != nil {
		o.book.CreditorDown(o.opt.Now())
		o.absorb()
		return err
	}
	o.book.CreditorDown(o.opt.Now())
	o.book.Attach(o.opt.Now(), e.Creditor())
	o.absorb()
	return nil
}

// connection is the owner's end of one with its creditor.
type connection struct {
	o    *Owner
	link Link
}

// +checklocks:o.mu
func (o *Owner) connect(e Engine) error {
	if o.stopped {
		return &Error{Code: ErrClosed, Op: "connect", Owner: o.opt.ID, Detail: "the owner has ended"}
	}
	c := &connection{o: o}
	link, err := e.Connect(o.opt.ID, c)
	if err != nil {
		return err
	}
	c.link, o.up = link, c
	return nil
}

// send sends messages, together if the link can.
func (c *connection) send(list []Message) {
	if p, ok := c.link.(Packer); ok && len(list) > 1 {
		p.SendAll(list)
		return
	}
	for _, m := range list {
		c.link.Send(m)
	}
}

// Deliver implements [Peer].
func (c *connection) Deliver(m Message) {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	if c.o.up == c && !c.o.stopped {
		c.o.book.Receive(c.o.opt.Now(), m)
		c.o.absorb()
	}
}

// Down implements [Peer].
func (c *connection) Down() {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	if c.o.up == c {
		c.o.up = nil
		c.o.book.CreditorDown(c.o.opt.Now())
		c.o.absorb()
	}
}
