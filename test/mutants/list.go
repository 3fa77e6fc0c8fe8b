package main

// mutants lists the rules that the crash tests must notice when broken.
func mutants() []mutant {
	return []mutant{
		{
			name: "commit: the mblock's data is not flushed before its record",
			file: "mblock/writer.go",
			old:  "",
		},
	}
}
