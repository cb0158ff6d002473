package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/storage/sealer"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

const (
	minerID = 1000
	// Unpadded bytes of a 2 KiB sector.
	whole = abi.UnpaddedPieceSize(2032)
)

var (
	sector = storiface.SectorRef{
		ID:        abi.SectorID{Miner: minerID, Number: 1},
		ProofType: abi.RegisteredSealProof_StackedDrg2KiBV1_1,
	}
	ticket = abi.SealRandomness(bytes.Repeat([]byte{0x11}, 32))
	seed   = abi.InteractiveSealRandomness(bytes.Repeat([]byte{0x22}, 32))
)

// data is the sector's piece: bytes that no two halves have alike.
func data() []byte {
	made := make([]byte, whole)
	for at := range made {
		made[at] = byte(at * 7 % 251)
	}
	return made
}

// seal leads a sector from its piece to long-term storage and back to its piece, by Lotus's manager. The worker that
// joined does the work; the miner's own worker does what it always does: fetching to its path, and Commit1 if its files
// were here.
func (m *miner) seal(ctx context.Context) error {
	piece, err := m.manager.AddPiece(ctx, sector, nil, whole, bytes.NewReader(data()))
	if err != nil {
		return fmt.Errorf("AddPiece: %w", err)
	}
	say("AddPiece", "piece", piece)
	pieces := []abi.PieceInfo{piece}
	phase1, err := m.manager.SealPreCommit1(ctx, sector, ticket, pieces)
	if err != nil {
		return fmt.Errorf("SealPreCommit1: %w", err)
	}
	cids, err := m.manager.SealPreCommit2(ctx, sector, phase1)
	if err != nil {
		return fmt.Errorf("SealPreCommit2: %w", err)
	}
	say("SealPreCommit2", "cids", cids)
	if cids.Unsealed != piece.PieceCID {
		return fmt.Errorf("CommD is %s and the only piece %s", cids.Unsealed, piece.PieceCID)
	}
	commit1, err := m.manager.SealCommit1(ctx, sector, ticket, seed, pieces, cids)
	if err != nil {
		return fmt.Errorf("SealCommit1: %w", err)
	}
	say("SealCommit1", "bytes", len(commit1))
	if err := m.prove(ctx, cids, commit1); err != nil {
		return err
	}
	if err := m.read(ctx, piece, "remote"); err != nil {
		return err
	}
	if err := m.store(ctx, piece, cids); err != nil {
		return err
	}
	return m.fails(ctx)
}

// prove has the worker, which holds the files, make both vanilla proofs; the one for Commit1 is what its task gave.
func (m *miner) prove(ctx context.Context, cids storiface.SectorCids, commit1 storiface.Commit1Out) error {
	challenge := storiface.PostSectorChallenge{
		SealProof:    sector.ProofType,
		SectorNumber: sector.ID.Number,
		SealedCID:    cids.Sealed,
		Challenge:    []uint64{0, 17, 63},
	}
	single, err := m.remote.GenerateSingleVanillaProof(
		ctx, minerID, challenge, abi.RegisteredPoStProof_StackedDrgWindow2KiBV1_1,
	)
	if err != nil {
		return fmt.Errorf("GenerateSingleVanillaProof: %w", err)
	}
	if len(single) == 0 {
		return errors.New("GenerateSingleVanillaProof: no bytes")
	}
	porep, err := m.remote.GeneratePoRepVanillaProof(ctx, sector, cids.Sealed, cids.Unsealed, ticket, seed)
	if err != nil {
		return fmt.Errorf("GeneratePoRepVanillaProof: %w", err)
	}
	if !bytes.Equal(porep, commit1) {
		return fmt.Errorf("GeneratePoRepVanillaProof gave %d bytes that are not the %d of Commit1", len(porep), len(commit1))
	}
	challenge.Challenge = []uint64{64}
	if _, err := m.remote.GenerateSingleVanillaProof(
		ctx, minerID, challenge, abi.RegisteredPoStProof_StackedDrgWindow2KiBV1_1,
	); err == nil || !strings.Contains(err.Error(), "each below 64") {
		return fmt.Errorf("a challenge outside the sector: %w", err)
	}
	say("VanillaProofs", "single", len(single))
	return nil
}

// read gets the piece as a retrieval does: from wherever the unsealed file is, in whole and from the middle.
func (m *miner) read(ctx context.Context, piece abi.PieceInfo, where string) error {
	provider := sealer.NewPieceProvider(m.remote, m.MemIndex, m.manager)
	unsealed, err := provider.IsUnsealed(ctx, sector, 0, whole)
	if err != nil || !unsealed {
		return fmt.Errorf("the piece is not unsealed (%s): %w", where, err)
	}
	reader, again, err := provider.ReadPiece(ctx, sector, 0, whole, ticket, piece.PieceCID)
	if err != nil {
		return fmt.Errorf("ReadPiece (%s): %w", where, err)
	}
	defer func() { _ = reader.Close() }()
	if again {
		return fmt.Errorf("the piece was unsealed once more (%s)", where)
	}
	got, err := io.ReadAll(reader)
	if err != nil {
		return fmt.Errorf("reading the piece (%s): %w", where, err)
	}
	if !bytes.Equal(got, data()) {
		return fmt.Errorf("%d bytes came that are not the piece's (%s)", len(got), where)
	}
	middle := make([]byte, 500)
	if _, err := reader.ReadAt(middle, 1000); err != nil || !bytes.Equal(middle, data()[1000:1500]) {
		return fmt.Errorf("the piece's middle is not what it was (%s): %w", where, err)
	}
	say("read", "where", where)
	return nil
}

// store finalizes, which moves all files to the miner's path; then the unsealed file is released, made again from the
// replica by the worker, and moved here once more.
func (m *miner) store(ctx context.Context, piece abi.PieceInfo, cids storiface.SectorCids) error {
	if err := m.manager.FinalizeSector(ctx, sector); err != nil {
		return fmt.Errorf("FinalizeSector: %w", err)
	}
	if err := m.only(ctx, storiface.FTUnsealed|storiface.FTSealed|storiface.FTCache); err != nil {
		return err
	}
	say("FinalizeSector")
	if err := m.manager.ReleaseUnsealed(ctx, sector, nil); err != nil {
		return fmt.Errorf("ReleaseUnsealed: %w", err)
	}
	left, err := m.MemIndex.StorageFindSector(ctx, sector.ID, storiface.FTUnsealed, 0, false)
	if err != nil || len(left) != 0 {
		return fmt.Errorf("the unsealed file is still at %v: %w", left, err)
	}
	if err := m.manager.SectorsUnsealPiece(ctx, sector, 0, whole, ticket, &cids.Unsealed); err != nil {
		return fmt.Errorf("SectorsUnsealPiece: %w", err)
	}
	if err := m.only(ctx, storiface.FTUnsealed|storiface.FTSealed|storiface.FTCache); err != nil {
		return err
	}
	say("SectorsUnsealPiece")
	return m.read(ctx, piece, "local")
}

// only demands one copy of each file: the miner's own.
func (m *miner) only(ctx context.Context, types storiface.SectorFileType) error {
	for _, kind := range types.AllSet() {
		found, err := m.MemIndex.StorageFindSector(ctx, sector.ID, kind, 0, false)
		if err != nil {
			return err
		}
		if len(found) != 1 || !found[0].CanStore || !found[0].Primary {
			return fmt.Errorf("%s should have one primary copy, in the path that stores: %+v", kind, found)
		}
	}
	return nil
}

// fails wants Go's form of a failure: the task's error with the worker's name behind it.
func (m *miner) fails(ctx context.Context) error {
	absent := sector
	absent.ID.Number = 78
	_, err := m.manager.AddPiece(ctx, absent, nil, whole*2, bytes.NewReader(data()))
	if err == nil {
		return errors.New("a piece of two sectors went into one")
	}
	var failure *storiface.CallError
	if !errors.As(err, &failure) {
		return fmt.Errorf("the failure is no CallError: %T %w", err, err)
	}
	say("refused", "code", failure.Code, "message", failure.Message, "named", strings.HasSuffix(failure.Message, "]"))
	return nil
}

// pushThrough gives a piece to the miner's API, as a client does. The miner sends the client on to the worker (302), so
// the bytes go there without passing through here.
func (m *miner) pushThrough(ctx context.Context, address, token string) error {
	info := apiInfo{token: token, host: address}
	for _, scheme := range []string{"http", "ws"} {
		own, closer, err := client.NewStorageMinerRPCV0(ctx, info.rpc(scheme), info.headers())
		if err != nil {
			return err
		}
		piece, err := own.ComputeDataCid(ctx, whole, bytes.NewReader(data()))
		closer()
		if err != nil {
			return fmt.Errorf("ComputeDataCid over %s: %w", scheme, err)
		}
		say("ComputeDataCid", "over", scheme, "piece", piece)
	}
	return nil
}
