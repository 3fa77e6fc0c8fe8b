package main

// creditMutants lists the rules of credits beside those of their library: who does the
// work checks them (the daemon), and who caches what they allow (the client library).
// Their tests may hang; the time-out is for that.
func creditMutants() []mutant {
	list := append(daemonCreditMutants(), clientCreditMutants()...)
	for i := range list {
		list[i].args += " -test.timeout=90s"
	}
	return list
}

func daemonCreditMutants() []mutant {
	return []mutant{
		{
			name: "credits in the daemon: a fenced handle is used on over the socket",
			file: "server/request.go",
			old:  "\tif e.Value.isFenced() {\n",
			new:  "\tif false {\n",
			pkg:  "./server", test: "TestFencedInItsTable",
		},
		{
			name: "credits in the daemon: a fenced handle is used on through a ring",
			file: "server/loop_op.go",
			old:  "\tif e.Value.isFenced() {\n",
			new:  "\tif false {\n",
			pkg:  "./server", test: "TestFencedInItsTable",
		},
		{
			name: "credits in the daemon: a fenced handle is handed over",
			file: "server/grant.go",
			old:  "\t\tif v.isFenced() {\n",
			new:  "\t\tif false {\n",
			pkg:  "./server", test: "TestFencedInItsTable",
		},
		{
			name: "credits in the daemon: a handle whose claim was taken is not fenced",
			file: "server/claim.go",
			old:  "func() { c.taken(s, id, v) }",
			new:  "func() {}",
			pkg:  "./test/credits", test: "TestStopped",
		},
		{
			name: "credits in the daemon: a fenced handle keeps its reference",
			file: "server/fence.go",
			old:  "\t\ts.endFenced(v)\n",
			new:  "",
			pkg:  "./test/credits", test: "TestStopped",
		},
		{
			name: "credits in the daemon: what the fenced had not committed is kept",
			file: "server/fence.go",
			old:  "if c.pool.adopter(id) == s { // nobody",
			new:  "if false { // nobody",
			pkg:  "./server", test: "TestFencedGiver",
		},
		{
			name: "credits in the daemon: the fate of a fenced commit is not awaited",
			file: "server/fence.go",
			old:  "\tif fate == nil {\n",
			new:  "\tif fate != nil || fate == nil {\n",
			pkg:  "./server", test: "TestFenceDuringCommit",
		},
		{
			name: "credits in the daemon: an open takes none",
			file: "server/request.go",
			old:  "return ioctl.Handle(h), r.claim(h, v)",
			new:  "return ioctl.Handle(h), nil",
			pkg:  "./server", test: "TestOpenOfWhatIsHeld",
		},
		{
			name: "credits in the daemon: handles that there are take none when an object is watched",
			file: "server/claim.go",
			old:  "if !c.claimAll(id) {",
			new:  "if false {",
			pkg:  "./server", test: "TestDeathOfWhoWaits",
		},
		{
			name: "credits in the daemon: an erase takes no append",
			file: "server/do_data.go",
			old:  "err = a.credits.during(r.ctx, r.s, ids, credit.Append, func() error { return o.mlog.Erase(r.ctx, m.MinGeneration) })",
			new:  "_, err = ids, o.mlog.Erase(r.ctx, m.MinGeneration)\n\t_ = credit.Append",
			pkg:  "./server", test: "TestEraseByTheFenced",
		},
		{
			name: "credits in the daemon: a delete takes none",
			file: "server/do_object.go",
			old:  "return a.credits.during(r.ctx, r.s, []layout.ObjectID{id}, credit.Delete, func() error { return o.obj.Delete(r.ctx) })",
			new:  "_ = credit.Delete\n\t\treturn o.obj.Delete(r.ctx)",
			pkg:  "./server", test: "TestDeleteIsNotFenced",
		},
		{
			name: "credits in the daemon: what is being deleted is lent at the deadline",
			file: "server/credits.go",
			old:  "Keep: lost == nil,",
			new:  "Keep: false,",
			pkg:  "./server", test: "TestDeleteIsNotFenced",
		},
		{
			name: "credits in the daemon: who dies waiting to delete deletes",
			file: "server/credits.go",
			old:  "wait, letGo := s.untilEnd(ctx)",
			new:  "wait, letGo := context.WithoutCancel(ctx), func() {}",
			pkg:  "./server", test: "TestDeathOfWhoDeletes",
		},
		{
			name: "credits in the daemon: a call-back is not sent",
			file: "server/creditlink.go",
			old:  "\tcase l.ended:\n",
			new:  "\tcase l.ended || m.Kind == credit.Recall:\n",
			pkg:  "./server", test: "TestOpenOfWhatIsHeld",
		},
		{
			name: "credits in the daemon: a call-back has no deadline",
			file: "server/credits.go",
			old:  "CallBack: max(srv.opt.CallBack, 0),",
			new:  "CallBack: 0,",
			pkg:  "./server", test: "TestDeleteAfterFence",
		},
		{
			name: "credits in the daemon: a dead session's are kept",
			file: "server/creditlink.go",
			old:  "\tl.link.Close()\n",
			new:  "",
			pkg:  "./server", test: "TestDeathOfWhoWaits",
		},
		{
			name: "credits in the daemon: the claims of handles that are closed are kept",
			file: "server/resources.go",
			old:  "\tp.credits.forget(v)\n",
			new:  "",
			pkg:  "./server", test: "TestOpenOfWhatIsHeld",
		},
		{
			name: "credits in the daemon: an object is watched for ever",
			file: "server/claim.go",
			old:  "if w == nil || w.pins > 0 || c.root.Lent(objectOf(id)) {",
			new:  "if w == nil || w.pins >= 0 || c.root.Lent(objectOf(id)) {",
			pkg:  "./server", test: "TestDeathOfWhoWaits",
		},
		{
			name: "credits in the daemon: what an evicted debtor had is watched on",
			file: "server/creditlink.go",
			old:  "\t\tc.reviewAll(had)\n",
			new:  "\t\t_ = had\n",
			pkg:  "./server", test: "TestEvicted",
		},
		{
			name: "credits in the daemon: who made an object claims to write it when it is committed",
			file: "server/claim.go",
			old:  "modesOf(x.v) != credit.Write && c.claim(",
			new:  "modesOf(x.v) == 0 && c.claim(",
			pkg:  "./server", test: "TestCommittedWhileWanted",
		},
		{
			name: "credits in the daemon: what others have one on is handed over",
			file: "server/grant.go",
			old:  "if a.credits.wantedByOthers(to, g.id) {",
			new:  "if false {",
			pkg:  "./server", test: "TestHandOverOfWhatIsLent",
		},
		{
			name: "credits in the daemon: a session conflicts with itself",
			file: "server/creditlink.go",
			old:  "msg.From, msg.To, msg.Group = l.id, ioctl.Creditor, s.id",
			new:  "msg.From, msg.To = l.id, ioctl.Creditor",
			pkg:  "./server", test: "TestOpenOfWhatIsHeld",
		},
		{
			name: "credits in the daemon: a grant says no version",
			file: "server/creditlink.go",
			old:  "\t\tm.Version = l.c.version(layout.ObjectID(m.Resource.ID))\n",
			new:  "",
			pkg:  "./test/credits", test: "TestCached",
		},
		{
			name: "credits in the daemon: tokens begin anew with it",
			file: "server/credits.go",
			old:  "FirstToken: info.Epoch << tokenBits,",
			new:  "FirstToken: 0 * info.Epoch << tokenBits,",
			pkg:  "./test/credits", test: "TestPoolLeaves",
		},
		{
			name: "credits in the daemon: what another makes is read before it is committed",
			file: "server/creditlink.go",
			old:  "if foreign && span.Modes&credit.Read != 0 {",
			new:  "if foreign && span.Modes == 0 {",
			pkg:  "./server", test: "TestWhoMayBorrow",
		},
		{
			name: "credits in the daemon: who may only read a pool borrows to write",
			file: "server/creditlink.go",
			old:  " && !ref.writable {",
			new:  " && ref == nil {",
			pkg:  "./server", test: "TestWhoMayBorrow",
		},
		{
			name: "credits in the daemon: what a session may not see it borrows",
			file: "server/creditlink.go",
			old:  "err = r.mustReachInfo(c.pool, &info)",
			new:  "_ = r.mustReachInfo(c.pool, &info)",
			pkg:  "./server", test: "TestWhoMayBorrow",
		},
	}
}

func clientCreditMutants() []mutant {
	return []mutant{
		{
			name: "credits in the client: bytes that are called back are kept",
			file: "client/creditcount.go",
			old:  "\t\tp.c.callBack(layout.ObjectID(m.Resource.ID))\n",
			new:  "",
			pkg:  "./client", test: "TestCachedDelete",
		},
		{
			name: "credits in the client: bytes that were called back while they were read are kept",
			file: "client/credits.go",
			old:  "\tif wanted {\n",
			new:  "\tif wanted && k == nil {\n",
			pkg:  "./client", test: "TestCachedDelete",
		},
		{
			name: "credits in the client: the socket is not watched again after a caller has received",
			file: "client/receive.go",
			old:  "\tif l.sock.overlook(false) == nil {\n",
			new:  "\tif l == nil {\n",
			pkg:  "./client", test: "TestCalledBackBesideAnswers",
		},
		{
			name: "credits in the client: bytes of another version are read",
			file: "client/cache.go",
			old:  "if o != nil && o.version != v {",
			new:  "if o != nil && o.version != v && false {",
			pkg:  "./client", test: "TestCreditsReconnect",
		},
		{
			name: "credits in the client: what was learned of another version is believed",
			file: "client/credits.go",
			old:  " || k.opened.version != v {",
			new:  " {",
			pkg:  "./client", test: "TestCachedDelete",
		},
		{
			name: "credits in the client: another mblock of the same id passes for the one that was open",
			file: "client/cached.go",
			old:  "case err == nil && x.created.Equal(m.created):",
			new:  "case err == nil:",
			pkg:  "./client", test: "TestCachedFenced",
		},
		{
			name: "credits in the client: a view does not keep its mblock",
			file: "client/cachedview.go",
			old:  "case !m.pin():",
			new:  "case m.pins.Load() <= 0:",
			pkg:  "./client", test: "TestCachedView",
		},
		{
			name: "credits in the client: an mblock is deleted under its own views",
			file: "client/cached.go",
			old:  "if m.pins.Load() > 1 {",
			new:  "if false {",
			pkg:  "./client", test: "TestCachedView",
		},
		{
			name: "credits in the client: its own delete spoils nothing",
			file: "client/creditchange.go",
			old:  "\t\tif changed {\n",
			new:  "\t\tif false {\n",
			pkg:  "./test/objectcache", test: "TestOwnDeleteAndMakeAnew|TestVersionOfALog",
		},
		{
			name: "credits in the client: a log that it appends to has a version",
			file: "client/credits.go",
			old:  "if !c.on.isChanging(c.key(id)) && !k",
			new:  "if !k",
			pkg:  "./test/objectcache", test: "TestVersionOfALog",
		},
		{
			name: "credits in the client: a log that is cached has a version",
			file: "client/credits.go",
			old:  "(fresh || steady(id, r.Modes))",
			new:  "(fresh || !fresh)",
			pkg:  "./test/objectcache", test: "TestVersionOfALog",
		},
		{
			name: "credits in the client: what is spoiled has a version while it is held",
			file: "client/credits.go",
			old:  " && !k.spoiled.Load() && (fresh",
			new:  " && (fresh",
			pkg:  "./test/objectcache", test: "TestSpoiledWhileHeld",
		},
		{
			name: "credits in the client: what it has open itself it deletes",
			file: "client/creditchange.go",
			old:  "opens(o.key()) - own; n > 0 {",
			new:  "opens(o.key()) - own; n < 0 {",
			pkg:  "./test/objectcache", test: "TestOwnOpenIsInTheWay",
		},
		{
			name: "credits in the client: any number is cached",
			file: "client/credits.go",
			old:  "for c.idle.Len() > c.most {",
			new:  "for c.idle.Len() < 0 {",
			pkg:  "./client", test: "TestCreditsPressure",
		},
		{
			name: "credits in the client: a lost connection's are valid",
			file: "client/credithold.go",
			old:  "!h.once.Load() && !h.c.gone() && h.h.Valid()",
			new:  "!h.once.Load()",
			pkg:  "./client", test: "TestCreditsReconnect",
		},
	}
}
