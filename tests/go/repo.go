package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	leveldb "github.com/ipfs/go-ds-leveldb"

	"github.com/filecoin-project/go-statestore"
	"github.com/filecoin-project/lotus/storage/sealer/fsutil"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// repo is a directory that is a storage path too, with the list of paths and a datastore beside the sectors, as a Lotus
// worker's is.
type repo struct {
	dir   string
	lock  sync.Mutex
	store *leveldb.Datastore
}

// openRepo makes the directory a storage path at the first start.
func openRepo(dir string, meta storiface.LocalStorageMeta) (*repo, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	store, err := leveldb.NewDatastore(filepath.Join(dir, "datastore"), nil)
	if err != nil {
		return nil, err
	}
	opened := &repo{dir: dir, store: store}
	if _, err := os.Stat(filepath.Join(dir, "sectorstore.json")); err == nil {
		return opened, nil
	}
	meta.ID = storiface.ID(uuid.NewString())
	if err := writeJSON(filepath.Join(dir, "sectorstore.json"), meta); err != nil {
		return nil, err
	}
	return opened, opened.SetStorage(func(paths *storiface.StorageConfig) {
		paths.StoragePaths = append(paths.StoragePaths, storiface.LocalPath{Path: dir})
	})
}

// calls is where a worker or a manager remembers what it has begun.
func (r *repo) calls(prefix string) *statestore.StateStore {
	return statestore.New(namespace.Wrap(r.store, datastore.NewKey(prefix)))
}

// GetStorage gives the list of paths.
func (r *repo) GetStorage() (storiface.StorageConfig, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.read()
}

// SetStorage changes it.
func (r *repo) SetStorage(change func(*storiface.StorageConfig)) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	paths, err := r.read()
	if err != nil {
		return err
	}
	change(&paths)
	return writeJSON(filepath.Join(r.dir, "storage.json"), paths)
}

// Stat tells how full a path is.
func (r *repo) Stat(path string) (fsutil.FsStat, error) { return fsutil.Statfs(path) }

// DiskUsage tells what a file or directory takes.
func (r *repo) DiskUsage(path string) (int64, error) {
	size, err := fsutil.FileSize(path)
	return size.OnDisk, err
}

func (r *repo) read() (storiface.StorageConfig, error) {
	var paths storiface.StorageConfig
	text, err := os.ReadFile(filepath.Join(r.dir, "storage.json"))
	if errors.Is(err, os.ErrNotExist) {
		return paths, nil
	}
	if err != nil {
		return paths, err
	}
	return paths, json.Unmarshal(text, &paths)
}

func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
