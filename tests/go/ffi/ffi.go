// Package ffi stands in the place of Lotus's binding of the proofs library, so that Lotus's storage code builds without
// that library. What sealing a committed-capacity sector needs is done by `sealyard exec`, the program under test's own
// executor; everything else answers with an error that says so. The functions that only refuse take any arguments.
package ffi

import (
	"errors"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/proof"
	"github.com/ipfs/go-cid"
)

var errAbsent = errors.New("this peer has no proofs library; only PreCommit1, PreCommit2, Commit1 and ClearCache work")

// PrivateSectorInfo is a sector with the paths of its replica.
type PrivateSectorInfo struct {
	proof.SectorInfo
	CacheDirPath     string
	PoStProofType    abi.RegisteredPoStProof
	SealedSectorPath string
}

// SortedPrivateSectorInfo is a list of them.
type SortedPrivateSectorInfo struct {
	f []PrivateSectorInfo
}

// NewSortedPrivateSectorInfo keeps the order it is given: nothing here proves.
func NewSortedPrivateSectorInfo(infos ...PrivateSectorInfo) SortedPrivateSectorInfo {
	return SortedPrivateSectorInfo{f: infos}
}

// FallbackChallenges are challenges by sector.
type FallbackChallenges struct {
	Sectors    []abi.SectorNumber
	Challenges map[abi.SectorNumber][]uint64
}

// PartitionProof is the proof of one partition.
type PartitionProof proof.PoStProof

// GetGPUDevices finds none.
func GetGPUDevices() ([]string, error) { return nil, nil }

func SealCommitPhase2(...any) ([]byte, error)                                  { return nil, errAbsent }
func GenerateSDR(...any) error                                                 { return errAbsent }
func GenerateSynthProofs(...any) error                                         { return errAbsent }
func ClearSyntheticProofs(...any) error                                        { return errAbsent }
func UnsealRange(...any) error                                                 { return errAbsent }
func AggregateSealProofs(...any) ([]byte, error)                               { return nil, errAbsent }
func VerifySeal(...any) (bool, error)                                          { return false, errAbsent }
func VerifyAggregateSeals(...any) (bool, error)                                { return false, errAbsent }
func VerifyWinningPoSt(...any) (bool, error)                                   { return false, errAbsent }
func VerifyWindowPoSt(...any) (bool, error)                                    { return false, errAbsent }
func GenerateWinningPoSt(...any) ([]proof.PoStProof, error)                    { return nil, errAbsent }
func GenerateWinningPoStWithVanilla(...any) ([]proof.PoStProof, error)         { return nil, errAbsent }
func GenerateWinningPoStSectorChallenge(...any) ([]uint64, error)              { return nil, errAbsent }
func GenerateSingleVanillaProof(...any) ([]byte, error)                        { return nil, errAbsent }
func GeneratePoStFallbackSectorChallenges(...any) (*FallbackChallenges, error) { return nil, errAbsent }
func MergeWindowPoStPartitionProofs(...any) (*proof.PoStProof, error)          { return nil, errAbsent }

func GenerateWindowPoSt(...any) ([]proof.PoStProof, []abi.SectorNumber, error) {
	return nil, nil, errAbsent
}

func GenerateSinglePartitionWindowPoStWithVanilla(...any) (*PartitionProof, error) {
	return nil, errAbsent
}

// SectorUpdate groups the functions of replica updates.
var SectorUpdate sectorUpdate

type sectorUpdate struct{}

func (sectorUpdate) EncodeInto(...any) (cid.Cid, cid.Cid, error) {
	return cid.Undef, cid.Undef, errAbsent
}
func (sectorUpdate) DecodeFrom(...any) error                               { return errAbsent }
func (sectorUpdate) RemoveData(...any) error                               { return errAbsent }
func (sectorUpdate) GenerateUpdateVanillaProofs(...any) ([][]byte, error)  { return nil, errAbsent }
func (sectorUpdate) GenerateUpdateProofWithVanilla(...any) ([]byte, error) { return nil, errAbsent }
func (sectorUpdate) VerifyUpdateProof(...any) (bool, error)                { return false, errAbsent }
