package client

import (
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// countedEngine counts what goes over an engine, and drops the bytes of objects
// whose credits are called back.
type countedEngine struct {
	credit.Engine
	c *credits
}

// Connect implements [credit.Engine].
func (e *countedEngine) Connect(debtor credit.OwnerID, peer credit.Peer) (credit.Link, error) {
	l, err := e.Engine.Connect(debtor, &countedPeer{peer, e.c})
	if err != nil {
		return nil, err
	}
	if s, ok := l.(socketLink); ok {
		return &countedSocket{s, e.c}, nil
	}
	return &countedLink{l, e.c}, nil
}

type countedLink struct {
	credit.Link
	c *credits
}

// Send implements [credit.Link].
func (l *countedLink) Send(m credit.Message) {
	l.c.messages.Add(1)
	l.Link.Send(m)
}

// socketLink is what a link by the socket can do.
type socketLink interface {
	credit.Link
	credit.Packer
	credit.Waiter
}

type countedSocket struct {
	socketLink
	c *credits
}

// Send implements [credit.Link].
func (l *countedSocket) Send(m credit.Message) {
	l.c.messages.Add(1)
	l.socketLink.Send(m)
}

// SendAll implements [credit.Packer].
func (l *countedSocket) SendAll(list []credit.Message) {
	l.c.messages.Add(uint64(len(list)))
	l.socketLink.SendAll(list)
}

type countedPeer struct {
	credit.Peer
	c *credits
}

// Deliver implements [credit.Peer]. Bytes go before anybody can hear that the
// credit has.
func (p *countedPeer) Deliver(m credit.Message) {
	if m.Kind == credit.Recall || m.Kind == credit.Taken {
		p.c.callBack(layout.ObjectID(m.Resource.ID))
	}
	if m.Kind != credit.Grant {
		p.Peer.Deliver(m)
		return
	}
	// Who has asked for it may have given up: then it is cached from now on.
	k := p.c.enter(layout.ObjectID(m.Resource.ID))
	p.c.came(k)
	p.Peer.Deliver(m)
	p.c.leave(k, false)
}

// Down implements [credit.Peer].
func (p *countedPeer) Down() {
	p.c.downs.Add(1)
	p.Peer.Down()
}

// came notes that a grant comes.
func (c *credits) came(k *known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = firstRefused
	k.had = true
	k.grants++
}
