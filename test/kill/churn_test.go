package kill

import (
	"context"
	"fmt"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

// compactions says how often the pool's metadata was compacted.
func (m media) compactions() (n string, err error) {
	n = "0"
	err = check.Dump(context.Background(), m.names(), m.checkOptions(), func(l *check.Line) error {
		for _, f := range l.Fields {
			if v := fmt.Sprint(f.Value); f.Name == "replaces_generation" && (len(v) > len(n) || len(v) == len(n) && v > n) {
				n = v
			}
		}
		return nil
	})
	return n, err
}

// churned is a pool whose metadata is compacted soon.
func churned(t *testing.T, f *stock) media {
	t.Helper()
	ctx := context.Background()
	m := stocked(t, f)
	age := func(m media, enough func(k int) (bool, error)) int {
		k := 0
		err := m.use("kill", func(p *mpool.Pool) error {
			for ; ; k++ {
				if done, err := enough(k); done || err != nil {
					return err
				}
				b, err := p.PutMblock(ctx, api.AllocOptions{Capacity: 4096}, pattern(4096))
				if err != nil {
					return err
				}
				if err := b.Delete(ctx); err != nil {
					return err
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	once := m.clone()
	was, err := once.compactions()
	if err != nil {
		t.Fatal(err)
	}
	const each = 8 // a look takes long
	k := age(once, func(i int) (bool, error) {
		if i%each != 0 {
			return false, nil
		}
		now, err := once.compactions()
		return now != was, err
	})
	for k -= 2 * each; ; k -= each { // what was seen of it came late, perhaps
		aged := m.clone()
		age(aged, func(i int) (bool, error) { return i >= k, nil })
		if now, err := aged.compactions(); err != nil {
			t.Fatal(err)
		} else if now == was {
			return aged
		}
	}
}

func churn() (list []step) {
	for i := range 24 {
		list = append(list, put(9000+i))
	}
	return list
}
