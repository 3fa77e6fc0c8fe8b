package scope

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Limit is how much a scope may use of a kind: a number, a share of what the
// machine has, or a word. The zero Limit says nothing: another decides.
type Limit struct {
	form limitForm
	n    int64 // a number, or thousandths of a percent
}

type limitForm uint8

const (
	limitUnsaid limitForm = iota
	limitFixed
	limitShare
	limitUnlimited
	limitBlock
)

// unlimited is the number that stands for no limit: as much as can be counted.
const unlimited = math.MaxInt64

// Unlimited is the limit that never refuses.
func Unlimited() Limit { return Limit{form: limitUnlimited} }

// Block is the limit that always refuses.
func Block() Limit { return Limit{form: limitBlock} }

// Fixed is a limit of n, which may be 0 and not less.
func Fixed(n int64) Limit { return Limit{limitFixed, max(n, 0)} }

// units are the suffixes of sizes.
var units = []struct {
	suffix string
	n      int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
}

// ParseLimit reads a limit: "unlimited", "block", a number of at least 0 with or
// without a unit of bytes ("64MiB"), or a share such as "5%" or "0.125%", in thousandths
// of a percent, which only Memory and Descriptors have. It returns an ErrInvalid for
// anything else.
func ParseLimit(text string) (Limit, error) {
	switch text {
	case "unlimited":
		return Unlimited(), nil
	case "block":
		return Block(), nil
	}
	wrong := fmt.Errorf("%w: limit %q: want a number, a size such as 64MiB, a share such as 5%%, unlimited or block", ErrInvalid, text)
	if s, ok := strings.CutSuffix(text, "%"); ok {
		v, err := strconv.ParseFloat(s, 64)
		n := math.Round(v * 1000)
		if err != nil || !(v >= 0 && v <= 100) || math.Abs(v*1000-n) > 1e-6 {
			return Limit{}, wrong
		}
		return Limit{limitShare, int64(n)}, nil
	}
	unit := int64(1)
	for _, u := range units {
		if s, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = strings.TrimSpace(s), u.n
			break
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		return Limit{}, wrong
	}
	return Fixed(v * unit), nil
}

// String returns what ParseLimit reads, or "" for the zero Limit.
func (l Limit) String() string {
	switch l.form {
	case limitFixed:
		return strconv.FormatInt(l.n, 10)
	case limitShare:
		return strconv.FormatFloat(float64(l.n)/1000, 'f', -1, 64) + "%"
	case limitUnlimited:
		return "unlimited"
	case limitBlock:
		return "block"
	case limitUnsaid:
	}
	return ""
}

// Check says whether a kind can have the limit: shares are of Memory and
// Descriptors only.
func (l Limit) Check(k Kind) error {
	if l.form == limitShare && k != Memory && k != Descriptors {
		return fmt.Errorf("%w: limit %v of %v: only memory and descriptors are a share of the machine's", ErrInvalid, l, k)
	}
	return nil
}

// on returns the number that the limit is on a machine.
func (l Limit) on(k Kind, m Machine) int64 {
	switch l.form {
	case limitFixed:
		return l.n
	case limitShare:
		whole := m.Memory
		if k == Descriptors {
			whole = m.Descriptors
		}
		hi, lo := bits.Mul64(uint64(max(whole, 0)), uint64(l.n))
		n, _ := bits.Div64(hi, lo, 100_000) // hi is less: a share is not more than the whole
		return int64(n)
	case limitBlock:
		return 0
	case limitUnlimited, limitUnsaid:
	}
	return unlimited
}

// Limits are the limits of a scope by kind. What is not there is not said.
type Limits map[Kind]Limit

// Layer gives limits to scopes by their names, or by the part of their names
// before the colon, which is then for each of them. A name goes before its part.
type Layer map[string]Limits

// check says what is wrong with a layer.
func (l Layer) check() error {
	for name, limits := range l {
		if name == "" {
			return fmt.Errorf("%w: limits of no scope: want a name, or what names begin with before the colon", ErrInvalid)
		}
		for k, v := range limits {
			if int(k) >= NumKinds {
				return fmt.Errorf("%w: scope %s: there is no %v", ErrInvalid, name, k)
			}
			if err := v.Check(k); err != nil {
				return fmt.Errorf("scope %s: %w", name, err)
			}
		}
	}
	return nil
}

// find returns what the layer says.
func (l Layer) find(name string, k Kind) (Limit, bool) {
	if v, ok := l[name][k]; ok && v.form != limitUnsaid {
		return v, true
	}
	class, _, _ := strings.Cut(name, ":")
	v, ok := l[class][k]
	return v, ok && v.form != limitUnsaid
}

// limit is one in effect.
type limit struct {
	n      int64
	block  bool
	origin string
}

// word returns the limit for people and for JSON.
func (l *limit) word() string {
	switch {
	case l.block:
		return "block"
	case l.n == unlimited:
		return "unlimited"
	}
	return strconv.FormatInt(l.n, 10)
}

// MaxPriority reserves up to the limit; see [Scope.ReserveMemory].
const MaxPriority = 255

// share returns limit × (1 + priority) / 256.
func share(limit int64, priority uint8) int64 {
	if priority == MaxPriority || limit == unlimited {
		return limit
	}
	hi, lo := bits.Mul64(uint64(limit), uint64(priority)+1)
	return int64(hi<<56 | lo>>8)
}
