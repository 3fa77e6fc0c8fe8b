package main

// serviceMutants lists the rules that the daemon and the client library add to the
// engine, those of credits aside.
func serviceMutants() []mutant {
	return []mutant{
		{
			name: "server: what is handed over stays its giver's, too",
			file: "server/grant.go",
			old:  "\ta.dropOwn(g.from, g.id)\n",
			new:  "",
			pkg:  "./server", test: "TestGrantModel",
		},
		{
			name: "server: what its giver is writing is handed over",
			file: "server/grant.go",
			old:  "return a.pool.MayHandOver(v.(*objectRef).obj)",
			new:  "return nil",
			pkg:  "./server", test: "TestHandOverDuringIO",
		},
		{
			name: "server: an object is handed over to who may not have it",
			file: "server/grant.go",
			old:  "if err := r.mustReachInfo(a, &info); errors.Is",
			new:  "if err := error(nil); errors.Is",
			pkg:  "./server", test: "TestAcceptIsForWhoMay",
		},
		{
			name: "server: a reader sees what another process has not synced",
			file: "server/do_data.go",
			old:  "return l.OpenReadAs(ctx, r.s.peer.number())",
			new:  "_ = l\n\t\t\treturn o.mlog.OpenRead(ctx)",
			pkg:  "./test/history", test: "TestHistories", args: "-history.for=60s",
		},
		{
			name: "client: what is open under a credit is not committed with others",
			file: "client/many.go",
			old:  "if m, ok := o.(*cachedMblock); ok && m.p.c == p.c {",
			new:  "if m, ok := o.(*cachedMblock); ok && m.p.c != p.c {",
			pkg:  "./test/metamorphic", test: "TestMetamorphic", args: "-metamorphic.for=100s -metamorphic.ops=300 -metamorphic.shrink=1s",
		},
	}
}
