package death

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// ledger is what one victim has told.
type ledger struct {
	plan     string         // what was to become of it
	pid      int32          // 0: it was not at work yet
	begun    map[tag]int    // commits sent: how many objects
	done     map[tag]bool   // commits acknowledged
	leaving  map[tag]bool   // deletions sent
	left     map[tag]bool   // deletions acknowledged
	records  map[tag]uint64 // acknowledged
	asked    map[tag]uint64 // at most, where several are under way at one time
	dialing  int            // connections begun, and
	dialed   int            // made
	heir     int            // the child that lives on, or 0
	mistakes []string
	ready    chan struct{} // closed when it is at work
	served   chan struct{} // closed when it was served, after what is no end
}

func newLedger() *ledger {
	return &ledger{
		begun: map[tag]int{}, done: map[tag]bool{}, leaving: map[tag]bool{}, left: map[tag]bool{},
		records: map[tag]uint64{}, asked: map[tag]uint64{}, dialing: 1,
		ready: make(chan struct{}), served: make(chan struct{}),
	}
}

// read reads what a victim tells until it is dead.
func (l *ledger) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if err := l.take(s.Text()); err != nil {
			l.mistakes = append(l.mistakes, fmt.Sprintf("%q: %v", s.Text(), err))
		}
	}
}

func (l *ledger) take(line string) error {
	what, rest, _ := strings.Cut(line, " ")
	var t tag
	var n uint64
	var err error
	switch what {
	case "E":
		l.mistakes = append(l.mistakes, rest)
		return nil
	case "r":
		_, err = fmt.Sscan(rest, &l.pid)
		l.dialed++
		close(l.ready)
		return err
	case "h":
		_, err = fmt.Sscan(rest, &l.heir)
		return err
	case "d":
		l.dialing++
		return nil
	case "D":
		l.dialed++
		return nil
	case "l":
		close(l.served)
		return nil
	case "c", "a", "q":
		_, err = fmt.Sscanf(rest, "%x %d", &t, &n)
	default:
		_, err = fmt.Sscanf(rest, "%x", &t)
	}
	if err != nil {
		return err
	}
	switch what {
	case "c":
		l.begun[t] = int(n)
	case "C":
		l.done[t] = true
	case "x":
		l.leaving[t] = true
	case "X":
		l.left[t] = true
	case "a":
		l.records[t] = n
	case "q":
		l.asked[t] = n
	default:
		return fmt.Errorf("no such line")
	}
	return nil
}

// must returns the tags of the objects that have to be there.
func (l *ledger) must() []tag {
	var list []tag
	for first := range l.done {
		for i := range l.begun[first] {
			if t := first + tag(i); !l.leaving[t] {
				list = append(list, t)
			}
		}
	}
	return list
}

// judge says what is wrong about the tags of a victim's objects that are there.
func (l *ledger) judge(there map[tag]bool) error {
	for _, t := range l.must() {
		if !there[t] {
			return fmt.Errorf("the object of tag %x is lost; its commit was acknowledged", t)
		}
	}
	present := map[tag]int{}
	for t := range there {
		if l.left[t] {
			return fmt.Errorf("the object of tag %x is there; its deletion was acknowledged", t)
		}
		if int(t-t.group()) >= l.begun[t.group()] {
			return fmt.Errorf("the object of tag %x is there; its commit was not sent", t)
		}
		present[t.group()]++
	}
	for first, n := range l.begun {
		for i := range n {
			if t := first + tag(i); l.leaving[t] && !there[t] {
				present[first]++ // it was deleted after it was committed
			}
		}
		if k := present[first]; k != 0 && k != n {
			return fmt.Errorf("of %d objects committed as one, that of tag %x the first, there are %d", n, first, k)
		}
	}
	return nil
}
