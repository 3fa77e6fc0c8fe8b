package history

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// step is one of the steps of a call.
type step struct {
	*call
	part part
}

// part says which step of a call it is.
type part uint8

// Most calls are one step. What each of them is, the models say.
const (
	first part = iota
	second
	looking // the client library looks what became of a call, and has a reference
	looked  // and gives it back
)

var partNames = [...]string{second: "(2) ", looking: "(looking) ", looked: "(looked) "}

// patience bounds how long the checker thinks about one history. Histories are of a
// size that takes it milliseconds.
const patience = 3 * time.Minute

// machine is the model of one object, log, or of the roots.
type machine struct {
	model porcupine.Model
	// more returns the steps of a call that it has beside the first.
	more func(c *call) []part
}

// newMachine makes a model of states that can be compared. next returns the states
// that a step may lead to; none: it cannot have been.
func newMachine[S comparable](first S, next func(S, step) []S, more func(*call) []part) machine {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{first} },
		Step: func(state, input, _ any) []any {
			var list []any
			for _, s := range next(state.(S), input.(step)) {
				list = append(list, s)
			}
			return list
		},
		DescribeOperation: func(input, _ any) string {
			s := input.(step)
			return partNames[s.part] + s.String()
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return machine{m.ToModel(), more}
}

// operations makes of calls what the checker wants.
func (m *machine) operations(calls []*call) []porcupine.Operation {
	slices.SortStableFunc(calls, func(a, b *call) int { return cmp.Compare(a.Begin, b.Begin) })
	var list []porcupine.Operation
	for _, c := range calls {
		op := porcupine.Operation{ClientId: c.Worker, Input: step{call: c}, Call: c.Begin, Return: c.End}
		list = append(list, op)
		for _, p := range m.more(c) {
			op.Input = step{c, p}
			list = append(list, op)
		}
	}
	return list
}

// explained says whether an order of the calls explains them.
func (m *machine) explained(calls []*call) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(m.model, m.operations(calls), patience)
}

// check fails the test unless an order of the calls explains them.
func (m *machine) check(t *testing.T, what string, calls []*call) {
	t.Helper()
	ops := m.operations(calls)
	result := porcupine.CheckOperationsTimeout(m.model, ops, patience)
	if result == porcupine.Ok {
		return
	}
	if result == porcupine.Unknown {
		t.Errorf("%s: the checker needs longer than %v for %d calls: make the rounds shorter", what, patience, len(calls))
		return
	}
	_, info := porcupine.CheckOperationsVerbose(m.model, ops, patience)
	path := "not written"
	if f, err := os.CreateTemp("", "history-*.html"); err == nil { //nolint:usetesting // it is to be looked at after the test
		path = f.Name()
		if err := porcupine.Visualize(m.model, info, f); err != nil {
			path = err.Error()
		}
		_ = f.Close() // what is missing is seen
	}
	t.Errorf("%s: no order explains these %d calls; to be seen in %s", what, len(calls), path)
	explainLongest(t, info, calls)
}

// explainLongest says how far the checker came.
func explainLongest(t *testing.T, info porcupine.LinearizationInfo, calls []*call) {
	t.Helper()
	parts := info.PartialLinearizationsOperations()
	var longest []porcupine.Operation
	for _, p := range parts {
		for _, l := range p {
			if len(l) > len(longest) {
				longest = l
			}
		}
	}
	in := make(map[*call]int)
	for _, o := range longest {
		in[o.Input.(step).call]++
	}
	for _, o := range longest[max(0, len(longest)-12):] {
		t.Logf("  explained: %d-%d %v", o.Call, o.Return, o.Input.(step))
	}
	for n, c := range slices.DeleteFunc(slices.Clone(calls), func(c *call) bool { return in[c] > 0 }) {
		if n == 12 {
			break
		}
		t.Logf("  not: %d-%d %v %s", c.Begin, c.End, c, c.Text)
	}
}
