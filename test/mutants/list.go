package main

import "slices"

// mutants lists the rules that the tests must notice when broken. Those without
// a package are for the crash tests of test/sim.
func mutants() []mutant {
	return slices.Concat(dataMutants(), poolMutants(), serviceMutants(), libraryMutants(), creditMutants())
}
