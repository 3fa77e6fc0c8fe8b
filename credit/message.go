package credit

import (
	"fmt"
	"time"
)

// Kind says what a message is.
type Kind uint8

// The messages. Up goes from a debtor to its creditor, down the other way. Those
// marked with a star are numbered: each side takes them once and in order, sends
// again what was not acknowledged, and is indifferent to how the others were
// lost, doubled or overtaken.
const (
	Hello    Kind = iota + 1 // up: a session begins; Sent, Group
	Welcome                  // down: it has; Sent as in Hello, Within is the lease, Level, Key
	Renew                    // up: the lease, please; Sent
	Renewed                  // down: Sent as in Renew, Within is the lease
	Gone                     // down: there is no such session
	Ack                      // both: nothing but the acknowledgement that every message carries
	Borrow                   // up*: Request asks for Credit, or Amount or at least Least of it; Flags; Code and Limit, of who carries it: refuse it
	Withdraw                 // up*: Request is not wanted any more
	Grant                    // down*: Credit is lent to Request; Token, Version
	Refuse                   // down*: Request is not granted: Code, Limit
	Recall                   // down*: give back Credit, or Amount of it, within Within (0: no matter when); if Try only if it is not held
	Kept                     // up*: Credit of a Recall with Try is held; of an amount, what was not returned is used
	Return                   // up*: Credit is given back; Version
	Taken                    // down*: Credit was taken from the debtor
	Raise                    // up*: refuse tokens older than Token for Credit; Request numbers it
	Raised                   // down*: it is so; Version
	Bye                      // up*: the session ends, everything was given back
	Waive                    // down*: Credit of Recalls without Try, or Amount, is not wanted back any more
)

var kindNames = [...]string{
	Hello: "hello", Welcome: "welcome", Renew: "renew", Renewed: "renewed", Gone: "gone", Ack: "ack",
	Borrow: "borrow", Withdraw: "withdraw", Grant: "grant", Refuse: "refuse", Recall: "recall", Kept: "kept",
	Return: "return", Taken: "taken", Raise: "raise", Raised: "raised", Bye: "bye", Waive: "waive",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Message is what owners say to each other. Which fields count depends on the
// kind. A Message is a value: nobody changes what it points to.
type Message struct {
	Kind     Kind
	From, To OwnerID
	Session  uint64 // the debtor numbers its sessions, rising
	Key      uint64 // the creditor numbers what it made of a Hello, which may come twice
	Seq      uint64 // of a numbered message, from 1 in each direction; else 0
	Ack      uint64 // the last numbered message that the sender has taken
	Seen     uint64 // up: the last numbered message that the sender had taken when it first sent this one
	Resource Resource
	Request  uint64
	Credit   Credit
	Amount   uint64
	Least    uint64
	Flags    Flags
	Code     Code
	Limit    *Limit // of Code ErrLimit: which; nil: not told, or told before
	Token    Token
	Version  Version
	Within   time.Duration
	Sent     time.Duration // the debtor's clock; the creditor only repeats it
	Group    uint64
	Level    int // of the creditor in the tree of owners
	// Unasked is of a Return that nobody waits for: whoever carries it may keep it until
	// there is another message to go with. Only its sender knows.
	Unasked bool
}

func (m Message) String() string {
	s := fmt.Sprintf("%s %d>%d/%d", m.Kind, m.From, m.To, m.Session)
	if m.Seq != 0 {
		s += fmt.Sprintf(" #%d", m.Seq)
	}
	s += fmt.Sprintf(" ack %d", m.Ack)
	if m.Resource.Type != nil {
		s += " " + m.Resource.String()
	}
	if m.Request != 0 {
		s += fmt.Sprintf(" request %d", m.Request)
	}
	if !m.Credit.Empty() {
		s += " " + m.Resource.Type.Format(m.Credit)
	}
	if m.Amount != 0 {
		s += fmt.Sprintf(" amount %d", m.Amount)
	}
	if m.Token != (Token{}) {
		s += " token " + m.Token.String()
	}
	return s
}
