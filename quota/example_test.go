package quota_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/quota"
)

// A service for databases: 2000 instances and 300 clusters in all, 25 and 4 for each
// user, 2 and 1 for amrith, and 20 TB and 10 GB of memory for each user, as many users
// as there may be. john asks for a cluster of four instances.
func Example() {
	const gb, tb = 1_000_000_000, 1_000_000_000_000
	ctx := context.Background()
	l := quota.New(quota.NewMemory(), quota.Options{})
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for name, limits := range map[string][2]quota.Limit{
		"database.instance": {2000, 25}, "database.cluster": {300, 4},
		"storage": {quota.Unlimited, 20 * tb}, "memory": {quota.Unlimited, 10 * gb},
	} {
		c := quota.NewClass(name, quota.Count)
		c.Total, c.Default = limits[0], limits[1]
		check(l.Define(ctx, c))
	}
	check(l.SetLimit(ctx, quota.OwnerLimit{Owner: "amrith", Class: "database.instance", Limit: 2}))
	check(l.SetLimit(ctx, quota.OwnerLimit{Owner: "amrith", Class: "database.cluster", Limit: 1}))

	reserve := func(owner, class string, n int64, under quota.ID) quota.ID {
		c, err := l.Reserve(ctx, quota.Ask{Owner: owner, Amounts: []quota.Amount{{Class: class, N: n}}, Parent: under})
		check(err)
		return c.ID
	}
	provision := func(id quota.ID, name string) {
		_, err := l.Provision(ctx, id, name, "")
		check(err)
	}
	used := func(owner, class string) int64 {
		list, err := l.Usage(ctx, owner)
		check(err)
		for _, u := range list {
			if u.Class == class {
				return u.Sum.Total()
			}
		}
		return 0
	}

	// Everything is reserved before anything is made.
	cluster := reserve("john", "database.cluster", 1, 0)
	var instances, volumes []quota.ID
	for range 4 {
		instance := reserve("john", "database.instance", 1, cluster)
		instances = append(instances, instance)
		volumes = append(volumes, reserve("john", "storage", 1*tb, instance))
		reserve("john", "memory", 1*gb, instance)
	}
	fmt.Println("storage reserved:", used("john", "storage")/tb, "TB")

	// The volumes are made, which may take minutes, and confirmed under their own ids;
	// then the instances, and at last the cluster.
	for i := range volumes {
		provision(volumes[i], fmt.Sprintf("cinder-%d-uuid", i+1))
	}
	for i := range instances {
		provision(instances[i], fmt.Sprintf("nova-%d-uuid", i+1))
	}
	provision(cluster, "cluster-uuid")
	_, err := l.Resize(ctx, quota.ByReal("cinder-3-uuid"), []quota.Amount{{Class: "storage", N: 2 * tb}}, "")
	check(err)
	fmt.Println("with volume 3 at 2 TB:", used("john", "storage")/tb, "TB")

	// By its own id or by that of its reservation is the same.
	_, err = l.Release(ctx, quota.ByReal("cinder-4-uuid"), "")
	check(err)
	_, err = l.Release(ctx, quota.ByID(volumes[3]), "")
	fmt.Println("volume 4 again:", errors.Is(err, quota.ErrNotFound))

	// Releasing the cluster releases all that lies below it.
	_, err = l.Release(ctx, quota.ByReal("cluster-uuid"), "")
	check(err)
	fmt.Println("left:", used("john", "database.cluster"), used("john", "database.instance"), used("john", "storage"), used("john", "memory"))

	// amrith may have less; what fails half-way takes one release, of the root.
	root := reserve("amrith", "database.cluster", 1, 0)
	reserve("amrith", "database.instance", 1, root)
	reserve("amrith", "database.instance", 1, root)
	_, err = l.Reserve(ctx, quota.Ask{Owner: "amrith", Amounts: []quota.Amount{{Class: "database.instance", N: 1}}, Parent: root})
	fmt.Println(err)
	_, err = l.Release(ctx, quota.ByID(root), "")
	check(err)
	fmt.Println("left:", used("amrith", "database.cluster"), used("amrith", "database.instance"))
	// Output:
	// storage reserved: 4 TB
	// with volume 3 at 2 TB: 5 TB
	// volume 4 again: true
	// left: 0 0 0 0
	// class database.instance: owner amrith may hold 2 and holds 2; 1 more do not fit
	// left: 0 0
}
