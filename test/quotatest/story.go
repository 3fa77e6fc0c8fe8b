package quotatest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mpool-go/mpool/quota"
)

// testStory: proves G20, G21, G24. 2000 instances and 300 clusters in all, 25 and 4
// per user, 2 and 1 for amrith; 20 TB and 10 GB of memory per user. john makes a
// cluster of four.
func testStory(t *testing.T, open func(testing.TB) Store) {
	const gb, tb = int64(1e9), int64(1e12)
	ctx, s := t.Context(), open(t)
	l := quota.New(s, quota.Options{})
	for _, c := range []quota.Class{
		{Name: "database.instance", Total: 2000, Default: 25, Min: 1, Max: quota.Unlimited, Step: 1},
		{Name: "database.cluster", Total: 300, Default: 4, Min: 1, Max: quota.Unlimited, Step: 1},
		{Name: "storage", Unit: quota.Bytes, Total: quota.Unlimited, Default: quota.Limit(20 * tb), Min: 1, Max: quota.Unlimited, Step: 1},
		{Name: "memory", Unit: quota.Bytes, Total: quota.Unlimited, Default: quota.Limit(10 * gb), Min: 1, Max: quota.Unlimited, Step: 1},
	} {
		if err := l.Define(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	for class, limit := range map[string]quota.Limit{"database.instance": 2, "database.cluster": 1} {
		if err := l.SetLimit(ctx, quota.OwnerLimit{Owner: "amrith", Class: class, Limit: limit}); err != nil {
			t.Fatal(err)
		}
	}
	reserve := func(owner, class string, n int64, under quota.ID) quota.ID {
		t.Helper()
		c, err := l.Reserve(ctx, quota.Ask{Owner: owner, Amounts: []quota.Amount{{Class: class, N: n}}, Parent: under})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	used := func(owner, class string, want int64) {
		t.Helper()
		if sum, err := sums(ctx, s, owner, class); err != nil || sum.Total() != want {
			t.Fatalf("%s holds %+v of %s, %v; want %d", owner, sum, class, err, want)
		}
	}
	cluster := reserve("john", "database.cluster", 1, 0)
	var volumes []quota.ID
	var instances []quota.ID
	for range 4 {
		instance := reserve("john", "database.instance", 1, cluster)
		instances = append(instances, instance)
		volumes = append(volumes, reserve("john", "storage", tb, instance))
		reserve("john", "memory", gb, instance)
	}
	used("john", "storage", 4*tb)
	used("john", "memory", 4*gb)
	used("", "database.instance", 4)
	for i, v := range volumes {
		if _, err := l.Provision(ctx, v, fmt.Sprintf("cinder-%d-uuid", i+1), ""); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range instances {
		if _, err := l.Provision(ctx, v, fmt.Sprintf("nova-%d-uuid", i+1), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Resize(ctx, quota.ByReal("cinder-3-uuid"), []quota.Amount{{Class: "storage", N: 2 * tb}}, ""); err != nil {
		t.Fatal(err)
	}
	used("john", "storage", 5*tb)
	if _, err := l.Release(ctx, quota.ByReal("cinder-4-uuid"), ""); err != nil {
		t.Fatal(err)
	}
	used("john", "storage", 4*tb)
	if _, err := l.Get(ctx, quota.ByID(volumes[3])); !errors.Is(err, quota.ErrNotFound) {
		t.Errorf("volume 4 by its other id: %v", err)
	}
	if _, err := l.Provision(ctx, cluster, "cluster-uuid", ""); err != nil {
		t.Fatal(err)
	}
	// amrith's failure half-way needs one release, of the root.
	root := reserve("amrith", "database.cluster", 1, 0)
	reserve("amrith", "database.instance", 1, root)
	reserve("amrith", "database.instance", 1, root)
	_, err := l.Reserve(ctx, quota.Ask{Owner: "amrith", Amounts: []quota.Amount{{Class: "database.instance", N: 1}}, Parent: root})
	var e *quota.Exceeded
	if !errors.As(err, &e) || *e != (quota.Exceeded{Class: "database.instance", Owner: "amrith", Used: 2, Asked: 1, Limit: 2}) {
		t.Fatalf("amrith's third instance: %v", err)
	}
	if list, err := l.Release(ctx, quota.ByID(root), ""); err != nil || len(list) != 3 {
		t.Fatalf("released %d, %v", len(list), err)
	}
	used("amrith", "database.instance", 0)
	if list, err := l.Release(ctx, quota.ByReal("cluster-uuid"), ""); err != nil || len(list) != 12 {
		t.Fatalf("released %d, %v", len(list), err)
	}
	for _, class := range []string{"database.instance", "database.cluster", "storage", "memory"} {
		used("", class, 0)
	}
	must(t, &s)
}
