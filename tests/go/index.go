package main

import (
	"context"
	"fmt"
	"math/rand"
	"reflect"
	"sort"

	"github.com/google/uuid"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/storage/paths"
	"github.com/filecoin-project/lotus/storage/sealer/fsutil"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// runIndex does the same to Lotus's index and to a manager's, and demands the same answers.
func runIndex(ctx context.Context, args []string) error {
	flags := flagSet("index")
	seedFlag := flags.Int64("seed", 1, "of the random steps")
	steps := flags.Int("steps", 400, "how many")
	if err := flags.Parse(args); err != nil {
		return err
	}
	info, err := minerInfo()
	if err != nil {
		return err
	}
	manager, closer, err := client.NewStorageMinerRPCV0(ctx, info.rpc("ws"), info.headers())
	if err != nil {
		return err
	}
	defer closer()
	pair := newPair(rand.New(rand.NewSource(*seedFlag)), manager)
	for step := 0; step < *steps; step++ {
		if err := pair.step(ctx); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	say("done", "steps", *steps, "compared", pair.compared, "refusals", pair.refusals)
	return nil
}

// pair is both indexes and what the steps are made of.
type pair struct {
	random   *rand.Rand
	lotus    paths.SectorIndex
	manager  paths.SectorIndex
	ids      []storiface.ID
	compared map[string]int
	refusals int
}

func newPair(random *rand.Rand, manager paths.SectorIndex) *pair {
	made := &pair{random: random, lotus: paths.NewMemIndex(nil), manager: manager, compared: map[string]int{}}
	for at := 0; at < 4; at++ {
		id, err := uuid.NewRandomFromReader(random)
		if err != nil {
			panic(err)
		}
		made.ids = append(made.ids, storiface.ID(id.String()))
	}
	return made
}

func (p *pair) step(ctx context.Context) error {
	id := p.ids[p.random.Intn(len(p.ids))]
	sector := abi.SectorID{Miner: minerID, Number: abi.SectorNumber(p.random.Intn(4))}
	kind := storiface.SectorFileType(1 << p.random.Intn(5))
	types := storiface.SectorFileType(1 + p.random.Intn(31))
	url := fmt.Sprintf("http://127.0.0.1:%d/remote", 9+p.random.Intn(3))
	primary := p.random.Intn(2) == 0
	switch p.random.Intn(10) {
	case 0:
		path, stat := p.path(id, url), p.stat()
		return p.both("StorageAttach", func(i paths.SectorIndex) (any, error) { return nil, i.StorageAttach(ctx, path, stat) })
	case 1:
		if p.random.Intn(3) > 0 {
			return nil
		}
		return p.both("StorageDetach", func(i paths.SectorIndex) (any, error) { return nil, i.StorageDetach(ctx, id, url) })
	case 2, 3:
		// Lotus takes files of a path that is not attached and never names them; the manager refuses them.
		if _, err := p.lotus.StorageInfo(ctx, id); err != nil {
			return nil
		}
		return p.both("StorageDeclareSector", func(i paths.SectorIndex) (any, error) {
			return nil, i.StorageDeclareSector(ctx, id, sector, types, primary)
		})
	case 4:
		return p.both("StorageDropSector", func(i paths.SectorIndex) (any, error) {
			return nil, i.StorageDropSector(ctx, id, sector, kind)
		})
	case 5:
		report := storiface.HealthReport{Stat: p.stat()}
		if p.random.Intn(5) == 0 {
			report.Err = "the disk is ill"
		}
		return p.both("StorageReportHealth", func(i paths.SectorIndex) (any, error) {
			return nil, i.StorageReportHealth(ctx, id, report)
		})
	default:
		return p.look(ctx, id, sector, types)
	}
}

// look asks both for all that can be asked.
func (p *pair) look(ctx context.Context, id storiface.ID, sector abi.SectorID, types storiface.SectorFileType) error {
	size := abi.SectorSize(2 << 10)
	for _, fetch := range []bool{false, true} {
		err := p.both("StorageFindSector", func(i paths.SectorIndex) (any, error) {
			found, err := i.StorageFindSector(ctx, sector, types, size, fetch)
			sort.Slice(found, func(a, b int) bool { return found[a].ID < found[b].ID })
			for at := range found {
				// For several types at once Lotus names none of them, and nobody asks it for that.
				if len(types.AllSet()) > 1 {
					found[at].URLs = nil
				}
				sort.Strings(found[at].URLs)
				sort.Strings(found[at].BaseURLs)
			}
			return orNil(found), err
		})
		if err != nil {
			return err
		}
	}
	for _, kind := range []storiface.PathType{storiface.PathSealing, storiface.PathStorage} {
		err := p.both("StorageBestAlloc", func(i paths.SectorIndex) (any, error) {
			best, err := i.StorageBestAlloc(ctx, types, size, kind, minerID)
			var ids []storiface.ID
			for _, path := range best {
				ids = append(ids, path.ID)
			}
			return orNil(ids), err
		})
		if err != nil {
			return err
		}
	}
	err := p.both("StorageInfo", func(i paths.SectorIndex) (any, error) {
		known, err := i.StorageInfo(ctx, id)
		sort.Strings(known.URLs)
		return known, err
	})
	if err != nil {
		return err
	}
	return p.both("StorageList", func(i paths.SectorIndex) (any, error) {
		listed, err := i.StorageList(ctx)
		for _, files := range listed {
			sort.Slice(files, func(a, b int) bool { return files[a].SectorID.Number < files[b].SectorID.Number })
		}
		return listed, err
	})
}

// both does the same to both and compares.
func (p *pair) both(name string, ask func(paths.SectorIndex) (any, error)) error {
	theirs, theirErr := ask(p.lotus)
	ours, ourErr := ask(p.manager)
	p.compared[name]++
	if (theirErr == nil) != (ourErr == nil) {
		return fmt.Errorf("%s: Lotus says %v, the manager %v", name, theirErr, ourErr)
	}
	if theirErr != nil {
		p.refusals++
		return nil
	}
	if !reflect.DeepEqual(theirs, ours) {
		return fmt.Errorf("%s:\nLotus gives       %+v\nthe manager gives %+v", name, theirs, ours)
	}
	return nil
}

// path is a storage path with its limits drawn. Miners are written with f: the manager writes them so however it read them.
func (p *pair) path(id storiface.ID, url string) storiface.StorageInfo {
	lists := [][]string{{}, {"sealed"}, {"cache", "unsealed"}}
	miners := [][]string{{}, {"f01000"}, {"f02000"}}
	groups := [][]storiface.Group{{}, {"a"}, {"a", "b"}}
	info := storiface.StorageInfo{
		ID: id, URLs: []string{url}, Weight: uint64(1 + p.random.Intn(3)),
		CanSeal: p.random.Intn(3) > 0, CanStore: p.random.Intn(3) > 0,
		Groups: []storiface.Group{}, AllowTo: []storiface.Group{},
		AllowTypes: []string{}, DenyTypes: []string{}, AllowMiners: []string{}, DenyMiners: []string{},
	}
	if p.random.Intn(3) == 0 {
		info.Groups, info.AllowTo = groups[p.random.Intn(3)], groups[p.random.Intn(3)]
	}
	if p.random.Intn(3) == 0 {
		info.AllowTypes, info.DenyTypes = lists[p.random.Intn(3)], lists[p.random.Intn(3)]
	}
	if p.random.Intn(3) == 0 {
		info.AllowMiners, info.DenyMiners = miners[p.random.Intn(3)], miners[p.random.Intn(3)]
	}
	return info
}

// stat is a disk's, sometimes full; no two are alike, so that the order of paths is defined.
func (p *pair) stat() fsutil.FsStat {
	room := int64(1+p.random.Intn(1000)) << 20
	if p.random.Intn(6) == 0 {
		room = int64(p.random.Intn(2000))
	}
	room += int64(p.random.Intn(4096)) * 3
	return fsutil.FsStat{Capacity: 1 << 40, Available: room, FSAvailable: room}
}

// orNil makes no elements and no list the same.
func orNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}
