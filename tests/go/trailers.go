package main

import (
	"context"
	"encoding/hex"
	"math/rand"
	"os"
	"path/filepath"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/filecoin-project/lotus/storage/sealer/partialfile"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// runTrailers marks and frees ranges of an unsealed file by Lotus's code and tells what stands behind the data each
// time. Each change has a handle of its own: Lotus's second change by one handle loses the first.
func runTrailers(_ context.Context, args []string) error {
	flags := flagSet("trailers")
	seed := flags.Int64("seed", 1, "of the random changes")
	steps := flags.Int("steps", 200, "how many")
	if err := flags.Parse(args); err != nil {
		return err
	}
	const size = abi.PaddedPieceSize(2048)
	dir, err := os.MkdirTemp("", "peer-trailers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "unsealed")
	made, err := partialfile.CreatePartialFile(size, path)
	if err != nil {
		return err
	}
	if err := made.Close(); err != nil {
		return err
	}
	random := rand.New(rand.NewSource(*seed))
	for step := 0; step < *steps; step++ {
		offset := abi.PaddedPieceSize(random.Intn(16)) * 128
		length := abi.PaddedPieceSize(1+random.Intn(int((size-offset)/128))) * 128
		file, err := partialfile.OpenPartialFile(size, path)
		if err != nil {
			return err
		}
		frees := random.Intn(3) == 0
		if frees {
			err = file.Free(storiface.PaddedByteIndex(offset), length)
		} else {
			err = file.MarkAllocated(storiface.PaddedByteIndex(offset), length)
		}
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		bytes, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		say("trailer", "frees", frees, "offset", offset, "length", length, "bytes", hex.EncodeToString(bytes[size:]))
	}
	say("done")
	return nil
}
