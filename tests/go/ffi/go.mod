module github.com/filecoin-project/filecoin-ffi

go 1.25
