package scope

import "fmt"

// Kind is something of which a process has only so much.
type Kind uint8

// The kinds. Connections and Tasks are totals: they are limited, and count what is
// reserved of the kinds above them, but nothing is reserved of them.
const (
	Memory      Kind = iota // bytes
	Inbound                 // connections that others made
	Outbound                // connections made to others
	Connections             // Inbound and Outbound
	Descriptors             // open files and sockets
	TasksHigh               // units of work that others wait for
	TasksMedium             // units of work of the usual sort
	TasksLow                // units of work that may be done later
	Tasks                   // TasksHigh, TasksMedium and TasksLow
	NumKinds    = int(Tasks) + 1
)

var kindNames = [NumKinds]string{
	Memory: "memory", Inbound: "inbound", Outbound: "outbound", Connections: "connections",
	Descriptors: "descriptors", TasksHigh: "tasks_high", TasksMedium: "tasks_medium", TasksLow: "tasks_low", Tasks: "tasks",
}

// String returns the kind's name in settings and messages.
func (k Kind) String() string {
	if int(k) < NumKinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// ParseKind returns the kind of a name. It returns an ErrInvalid for any other.
func ParseKind(name string) (Kind, error) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("%w: there is no kind %q: want one of %q", ErrInvalid, name, kindNames)
}

// total returns the total that a kind counts in, or the kind itself.
func (k Kind) total() Kind {
	switch {
	case k == Inbound || k == Outbound:
		return Connections
	case k >= TasksHigh && k <= TasksLow:
		return Tasks
	}
	return k
}

// reservable says whether something may be reserved of a kind.
func (k Kind) reservable() bool {
	return int(k) < NumKinds && k != Connections && k != Tasks
}

// Amount is so much of a kind.
type Amount struct {
	Kind Kind
	N    int64
}

// add appends to what a reservation or a release changes an amount and that of its
// total, and says what is wrong with it.
func (a Amount) add(list []Amount) ([]Amount, error) {
	if !a.Kind.reservable() {
		return list, fmt.Errorf("%w: nothing can be reserved of %v", ErrInvalid, a.Kind)
	}
	if a.N < 0 {
		return list, fmt.Errorf("%w: %d of %v is less than nothing", ErrInvalid, a.N, a.Kind)
	}
	list = append(list, a)
	if t := a.Kind.total(); t != a.Kind {
		list = append(list, Amount{t, a.N})
	}
	return list, nil
}
