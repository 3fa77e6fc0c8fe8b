package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/mpool-go/mpool/api"
)

// demoFile is a file that the demo stores.
type demoFile struct {
	name string
	data []byte
}

// maxDemoFile bounds what the demo takes of files into memory, in bytes.
const maxDemoFile = 64 << 20

// demoFiles reads the files of the command line, or makes some up: empty, of one
// byte, of one block, and longer ones that end within a block.
func demoFiles(args []string) ([]demoFile, error) {
	if len(args) > 1 {
		return readDemoFiles(args[1:])
	}
	random := rand.NewChaCha8([32]byte{'d', 'e', 'm', 'o'})
	var files []demoFile
	for _, n := range []int{0, 1, 4096, 100_000, 1 << 20, 3<<20 + 7} {
		data := make([]byte, n)
		if _, err := random.Read(data); err != nil {
			return nil, err
		}
		files = append(files, demoFile{name: fmt.Sprintf("%d bytes", n), data: data})
	}
	return files, nil
}

func readDemoFiles(paths []string) ([]demoFile, error) {
	var files []demoFile
	left := int64(maxDemoFile)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		var data bytes.Buffer
		n, err := io.Copy(&data, io.LimitReader(f, left+1))
		// It was only read.
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		if left -= n; left < 0 {
			return nil, api.Errorf(api.EFBIG, "", "the demo takes files of %s in all: give smaller ones", formatSize(maxDemoFile))
		}
		files = append(files, demoFile{name: path, data: data.Bytes()})
	}
	return files, nil
}
