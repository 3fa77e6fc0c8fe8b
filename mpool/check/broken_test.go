package check_test

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

// breakage is a way to break a good pool, and the codes that it must give; the
// golden file has the words.
type breakage struct {
	name     string
	do       func(t *testing.T, f *fixture)
	problems string
	notes    string
}

// small marks the breakages of a pool whose metadata log has no final pages.
const small = "small pool: "

var le = binary.LittleEndian

// plainText leaves out what differs from run to run: metadata records carry the
// time, and checksums follow.
func plainText(s string) string {
	return regexp.MustCompile("(CRC|want|checksum|recorded) [0-9a-f]{8}").ReplaceAllString(s, "$1 xxxxxxxx")
}

func codes(list []check.Problem) string {
	var c []string
	for _, p := range list {
		c = append(c, p.Code)
	}
	return strings.Join(c, " ")
}

// Every way to break a pool gives its problem, and no other.
//
// proves S45
func TestBroken(t *testing.T) {
	plain := newFixture(t)
	good := *plain
	good.disk = plain.disk.Clone()
	use(t, good.disk, func(p *mpool.Pool) {
		for range 70 {
			put(t, p, 1)
		}
	})
	wantClean(t, good.disk)
	for _, group := range []struct {
		name string
		list []breakage
	}{
		{"superblock", superblockBreakages()},
		{"log", logBreakages()},
		{"record", recordBreakages()},
		{"object", objectBreakages()},
		{"data", dataBreakages()},
	} {
		var out strings.Builder
		for _, b := range group.list {
			t.Run(group.name+"/"+b.name, func(t *testing.T) {
				f := good
				if strings.HasPrefix(b.name, small) {
					f = *plain
				}
				f.disk = f.disk.Clone()
				b.do(t, &f)
				r := run(t, f.disk)
				if got := codes(r.Problems); got != b.problems {
					t.Errorf("problems %q, want %q: %v", got, b.problems, r.Problems)
				}
				if got := codes(r.Notes); got != b.notes {
					t.Errorf("notes %q, want %q: %v", got, b.notes, r.Notes)
				}
				fmt.Fprintf(&out, "%s\n", b.name)
				for i, p := range r.Problems {
					if i < 20 || i == len(r.Problems)-1 {
						fmt.Fprintf(&out, "  %v\n", p)
					}
				}
				for _, p := range r.Notes {
					fmt.Fprintf(&out, "  note %v\n", p)
				}
			})
		}
		golden(t, group.name+".golden", plainText(out.String()))
	}
}
