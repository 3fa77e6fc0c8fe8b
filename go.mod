module github.com/mpool-go/mpool

go 1.26
