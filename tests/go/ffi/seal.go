package ffi

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
)

// The program whose `exec` command does the sealing.
const programEnv = "SEALYARD_PROGRAM"

type object map[string]any

// SealPreCommitPhase1 labels the replica; gives the library's own JSON.
func SealPreCommitPhase1(
	proofType abi.RegisteredSealProof, cache, staged, sealed string,
	number abi.SectorNumber, miner abi.ActorID, ticket abi.SealRandomness, pieces []abi.PieceInfo,
) ([]byte, error) {
	input := object{"ticket": hex.EncodeToString(ticket), "pieces": pieceList(pieces)}
	sector := abi.SectorID{Miner: miner, Number: number}
	var out []byte
	err := execute("PC1", sector, proofType, object{"unsealed": staged, "sealed": sealed, "cache": cache}, input, &out)
	return out, err
}

// SealPreCommitPhase2 makes the trees and the replica; gives CommR and CommD. The sector is told by the replica's name.
func SealPreCommitPhase2(phase1 []byte, cache, sealed string) (cid.Cid, cid.Cid, error) {
	var head struct {
		RegisteredProof string `json:"registered_proof"`
	}
	if err := json.Unmarshal(phase1, &head); err != nil {
		return cid.Undef, cid.Undef, err
	}
	if head.RegisteredProof != "StackedDrg2KiBV1_1" {
		return cid.Undef, cid.Undef, fmt.Errorf("this peer seals StackedDrg2KiBV1_1, not %q", head.RegisteredProof)
	}
	var sector abi.SectorID
	if _, err := fmt.Sscanf(filepath.Base(sealed), "s-t0%d-%d", &sector.Miner, &sector.Number); err != nil {
		return cid.Undef, cid.Undef, err
	}
	var out struct{ Unsealed, Sealed string }
	files := object{"unsealed": sealed + ".none", "sealed": sealed, "cache": cache}
	proofType := abi.RegisteredSealProof_StackedDrg2KiBV1_1
	if err := execute("PC2", sector, proofType, files, object{"pc1": phase1}, &out); err != nil {
		return cid.Undef, cid.Undef, err
	}
	commR, err := cid.Decode(out.Sealed)
	if err != nil {
		return cid.Undef, cid.Undef, err
	}
	commD, err := cid.Decode(out.Unsealed)
	return commR, commD, err
}

// SealCommitPhase1 answers the interactive challenges; gives the library's own JSON.
func SealCommitPhase1(
	proofType abi.RegisteredSealProof, commR, commD cid.Cid, cache, sealed string,
	number abi.SectorNumber, miner abi.ActorID, ticket abi.SealRandomness, seed abi.InteractiveSealRandomness,
	pieces []abi.PieceInfo,
) ([]byte, error) {
	input := object{
		"ticket": hex.EncodeToString(ticket), "seed": hex.EncodeToString(seed), "pieces": pieceList(pieces),
		"sealed": commR.String(), "unsealed": commD.String(),
	}
	files := object{"unsealed": sealed + ".none", "sealed": sealed, "cache": cache}
	var out []byte
	err := execute("C1", abi.SectorID{Miner: miner, Number: number}, proofType, files, input, &out)
	return out, err
}

// ClearCache keeps what proofs of space-time need of a cache.
func ClearCache(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		for _, cleared := range []string{"sc-02-data-layer-", "sc-02-data-tree-c", "sc-02-data-tree-d"} {
			if strings.HasPrefix(entry.Name(), cleared) {
				if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func pieceList(pieces []abi.PieceInfo) []object {
	list := make([]object, 0, len(pieces))
	for _, piece := range pieces {
		list = append(list, object{"size": piece.Size, "cid": piece.PieceCID.String()})
	}
	return list
}

// execute runs one task as the page on executors says: a request file, a report file.
func execute(
	task string, sector abi.SectorID, proofType abi.RegisteredSealProof, files, input object, out any,
) error {
	dir, err := os.MkdirTemp("", "peer-exec-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	request, err := json.Marshal(object{
		"version": 1,
		"sector":  object{"id": object{"miner": sector.Miner, "number": sector.Number}, "proof": proofType},
		"work":    object{"task": task, "input": input},
		"files":   files,
	})
	if err != nil {
		return err
	}
	asked, told := filepath.Join(dir, "request.json"), filepath.Join(dir, "report.json")
	if err := os.WriteFile(asked, request, 0o600); err != nil {
		return err
	}
	command := exec.Command(os.Getenv(programEnv), "exec", strings.ToLower(task), "--input", asked, "--output", told)
	said, failed := command.CombinedOutput()
	text, err := os.ReadFile(told)
	if err != nil {
		return fmt.Errorf("%s: %w; %s", task, failed, said)
	}
	var report struct {
		Done   *struct{ Output json.RawMessage }
		Failed *struct{ Message string }
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return err
	}
	if report.Done == nil {
		return fmt.Errorf("%s failed: %s", task, text)
	}
	return json.Unmarshal(report.Done.Output, out)
}
