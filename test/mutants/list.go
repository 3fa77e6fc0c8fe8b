package main

// mutants lists the rules that the tests must notice when broken. Those without
// a package are for the crash tests of test/sim.
func mutants() []mutant {
	return []mutant{
		{
			name: "mblock: its data is not flushed before its record",
			file: "mblock/seal.go",
			old:  "err = w.cfg.Drive.Flush(ctx, ticket)",
			new:  "err, _ = nil, ticket",
		},
		{
			name: "mblock: Seal does not wait for writes under way",
			file: "mblock/seal.go",
			old:  "for w.err == nil && (w.sealing || len(w.open) > 0) {",
			new:  "for w.err == nil && w.sealing {",
			pkg:  "./mblock", test: ".",
		},
		{
			name: "mlog: a group is not flushed",
			file: "mlog/writer.go",
			old:  "return crc, l.c.Drive.Flush(ctx, ticket)",
			new:  "_ = ticket\n\treturn crc, nil",
		},
		{
			name: "mlog: the tail is written over the only copy",
			file: "mlog/writer.go",
			old:  "w.durable, w.pair = w.group, 1-w.pair",
			new:  "w.durable = w.group",
		},
		{
			name: "mlog: after a recovery the first group overwrites the tail",
			file: "mlog/open.go",
			old:  "pair: 1 - t.slot.pair}",
			new:  "pair: t.slot.pair}",
		},
		{
			name: "mlog: a tail need not stand on the page before it",
			file: "mlog/chain.go",
			old:  "case p.Prev != c.prev:",
			new:  "case false:",
			pkg:  "./mlog", test: "^(TestCrash|TestRot|TestChain)",
		},
		{
			name: "mlog: pages of a former generation pass",
			file: "mlog/chain.go",
			old:  "case p.Generation != c.generation:",
			new:  "case false:",
			pkg:  "./mlog", test: "^(TestCrash|TestRot|TestMDC|TestChain)",
		},
		{
			name: "mlog: a claim that more was durable is not looked at",
			file: "mlog/recover.go",
			old:  "if t != nil && r.claim.met(&t.slot.page) {",
			new:  "if t != nil {",
			pkg:  "./mlog", test: "^(TestCrash|TestRot|TestMDC|TestChain)",
		},
		{
			name: "mlog: an erase does not make the empty log durable first",
			file: "mpool/log.go",
			old:  "return mlog.Format(context.Background(), o.logConfig(&next), now.Generation)",
			new:  "return nil",
		},
		{
			name: "mlog: an erase overwrites the current tail",
			file: "mlog/slots.go",
			old:  "Offset: c.pairOffset(1 - keep), Buf: buf",
			new:  "Offset: c.pairOffset(keep), Buf: buf",
		},
		{
			name: "mdc: the switch does not make the end mark durable",
			file: "mlog/mdc_compact.go",
			old:  "if err = to.Sync(ctx); err != nil {",
			new:  "if false {",
		},
		{
			name: "mdc: appends during a compaction go to the old log only",
			file: "mlog/mdc.go",
			old:  "if other != nil {\n\t\t\t\t\tif _, _, err := other.try(",
			new:  "if false {\n\t\t\t\t\tif _, _, err := other.try(",
		},
		{
			name: "bdev: a flush under way serves writes that end during it",
			file: "bdev/flush.go",
			old:  "need := f.begun + 1",
			new:  "need := max(f.begun, 1)",
		},
		{
			name: "bdev: a failed flush is forgotten",
			file: "bdev/flush.go",
			old:  "\tif f.failures != t.failures {\n\t\treturn ErrFlushFailed\n\t}\n\treturn nil",
			new:  "\treturn nil",
			pkg:  "./bdev", test: "Flush",
		},
		{
			name: "mpool: a transaction is acknowledged before it is durable",
			file: "mpool/meta.go",
			old:  "if err = m.mdc.SyncTo(ctx, t.seq+1); err == nil {",
			new:  "if err == nil {",
		},
		{
			name: "mpool: ids are given above the durable limit",
			file: "mpool/counters.go",
			old:  "for c.nextBirth >= c.limitBirth || id == 0 && c.nextID >= c.limitID || id >= c.limitID {",
			new:  "for id >= c.limitID && id != 0 {",
		},
		{
			name: "mpool: counting goes on below the limit after a crash",
			file: "mpool/counters.go",
			old:  "c.nextID, c.nextBirth = c.limitID, c.limitBirth",
			new:  "c.nextID, c.nextBirth = max(c.limitID, counterStep)-counterStep+firstID, max(c.limitBirth, counterStep)-counterStep+firstBirth",
		},
		{
			name: "mpool: a deleted object's zones are freed before its record is durable",
			file: "mpool/commit.go",
			old:  "o.state = deleting\n\treturn o.desc, nil",
			new:  "o.state = deleting\n\to.drive.drain.discard(context.Background(), []space.Run{o.run})\n\treturn o.desc, nil",
		},
		{
			name: "mpool: a compaction reads what is not applied yet",
			file: "mpool/compact.go",
			old:  "if err := m.mdc.Sync(ctx); err != nil { // what was sent before is applied now",
			new:  "if err := error(nil); err != nil { // what was sent before is applied now",
		},
		{
			name: "mpool: a compaction writes an object that a transaction changes",
			file: "mpool/compact.go",
			old:  "if busy[o.ID] {",
			new:  "if busy[o.ID] && next == ^uint64(0) {",
		},
		{
			name: "mpool: a commit of many is several transactions",
			file: "mpool/commit.go",
			old:  "\treturn p.meta.commit(ctx, t)\n}\n\n// prepareAll",
			new: "\tif len(objects) > 1 {\n\t\tone := &txn{op: op}\n\t\tone.rec.Create(&descs[0])\n\t\tone.apply = func() {}\n" +
				"\t\tif err := p.meta.commit(ctx, one); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\treturn p.meta.commit(ctx, t)\n}\n\n// prepareAll",
		},
		{
			name: "mpool: zones are given anew while a read of the former owner is under way",
			file: "layout/use.go",
			old:  "if u.pins.Add(retiredBias) == retiredBias {",
			new:  "if u.pins.Add(retiredBias) <= 0 {",
			pkg:  "./mpool", test: "TestDeleteWaitsForReads",
		},
		{
			name: "mpool: superblock copies are written all at once",
			file: "mpool/superblock.go",
			old:  "if err := writeDurably(ctx, d, b, off); err != nil {\n\t\t\treturn fmt.Errorf(\"write superblock copy",
			new:  "if err := writeAt(ctx, d, b, off); err != nil {\n\t\t\treturn fmt.Errorf(\"write superblock copy",
			pkg:  "./mpool", test: "TestLifecycleIsAtomic",
		},
		{
			name: "mpool: a forced create leaves the old superblocks",
			file: "mpool/creation.go",
			old:  "if err := wipeSuperblocks(ctx, d.dev, d.ends...); err != nil {",
			new:  "if err := error(nil); err != nil {",
			pkg:  "./mpool", test: "TestLifecycleIsAtomic",
		},
		{
			name: "mpool: a pool is made before all its drives are",
			file: "mpool/creation.go",
			old:  "\tif err := c.prepare(ctx); err != nil {\n",
			new:  "\tif err := writeSuperblocks(ctx, c.drives[0].dev, *c.sb); err != nil {\n\t\treturn err\n\t}\n\tif err := c.prepare(ctx); err != nil {\n",
			pkg:  "./mpool", test: "TestLifecycleOverDrivesIsAtomic",
		},
		{
			name: "mpool: an activation raises the epoch elsewhere first",
			file: "mpool/activate.go",
			old:  "\tsb := p.sb.Load()\n\tif err := p.metaDrive().takeOver(",
			new:  "\tsb := p.sb.Load()\n\tfor _, d := range p.drives[1:] {\n\t\tif err := d.takeOver(ctx, sb, m); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\tif err := p.metaDrive().takeOver(",
			pkg:  "./mpool", test: "TestLifecycleOverDrivesIsAtomic",
		},
		{
			name: "mpool: a destruction wipes the metadata drive at once",
			file: "mpool/lifecycle.go",
			old:  "p.shut(true,",
			new:  "p.shut(false,",
			pkg:  "./mpool", test: "TestLifecycleOverDrivesIsAtomic",
		},
		{
			name: "mpool: a commit holds up all others while its drive works",
			file: "mpool/commit.go",
			old:  "\tdescs, err := p.prepareAll(ctx, op, started)\n",
			new:  "\tif err := p.admin.enter(ctx, op); err != nil {\n\t\tcancel()\n\t\treturn err\n\t}\n\tdescs, err := p.prepareAll(ctx, op, started)\n\tp.admin.leave()\n",
			test: "TestStalledClass",
		},
	}
}
