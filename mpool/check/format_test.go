package check_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
)

// blank is the engine of a device that reads as zeros.
type blank struct{ size int64 }

func (b blank) Geometry() bdev.Geometry {
	return bdev.Geometry{Path: "blank", Size: b.size, LogicalSector: 512, PhysicalSector: 512, ReadOnly: true}
}
func (blank) Name() string                                         { return "blank" }
func (blank) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }
func (blank) Close() error                                         { return nil }
func (blank) Start(ops []*bdev.Op) {
	for _, o := range ops {
		clear(o.Buf)
		o.Complete(nil)
	}
}

// The table of docs/format.md says how drives are divided.
//
// proves S6
func TestFormatTable(t *testing.T) {
	text, err := os.ReadFile("../../docs/format.md")
	do(t, err)
	units := map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	rows := regexp.MustCompile(`(?m)^\| (\d+) ([MGT]iB) \|(.*)\|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) != 4 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		n, err := strconv.ParseInt(row[1], 10, 64)
		do(t, err)
		size := n * units[row[2]]
		var cells []int64
		for _, c := range strings.Split(row[3], "|")[:7] {
			v, err := strconv.ParseInt(strings.TrimSpace(c), 10, 64)
			do(t, err)
			cells = append(cells, v)
		}
		zone, zones, log, head, overhead, rest, usable := cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]
		r, err := mpool.Create(bg, "pool", []string{"blank"}, api.CreateOptions{DryRun: true}, mpool.Options{
			Open: func(context.Context, string, bool) (*bdev.Drive, error) { return bdev.NewDrive(nil, blank{size}), nil },
		})
		do(t, err)
		if r.ZoneSize != zone || r.OverheadBytes != overhead+rest || r.UsableBytes != usable {
			t.Errorf("%s %s: %+v", row[1], row[2], r)
		}
		if zones*zone+rest != size || head*zone != overhead || (1<<20+4096+2*log+zone-1)/zone != head ||
			overhead+rest+usable != size || log != max((zones*512+4095)/4096*4096, 1<<20) {
			t.Errorf("%s %s does not add up", row[1], row[2])
		}
		if percent := fmt.Sprintf("%.2f %%", 100*float64(overhead+rest)/float64(size)); !strings.Contains(row[3], percent) {
			t.Errorf("%s %s: %s", row[1], row[2], percent)
		}
		if size >= 1<<30 && (overhead+rest)*50 > size {
			t.Errorf("%s %s: more than 2 %% overhead", row[1], row[2])
		}
	}
	if bytes.Contains(text, []byte("\t")) {
		t.Error("the text has tabs")
	}
}
