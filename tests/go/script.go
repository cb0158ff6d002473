package main

import (
	"context"
	"errors"
	"flag"
	"sync"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/lotus/api"
	"github.com/filecoin-project/lotus/storage/sealer"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// script is what a worker does besides what Lotus's does: things that happen to real ones seldom and at bad times.
type script struct {
	early bool
	twice bool
	fails bool
	hangs bool
}

func (s *script) flags(flags *flag.FlagSet) {
	flags.BoolVar(&s.early, "early", false, "PreCommit2 returns before its call is answered")
	flags.BoolVar(&s.twice, "twice", false, "Commit1 is returned twice")
	flags.BoolVar(&s.fails, "fails", false, "the first PreCommit1 fails as on a restarted worker")
	flags.BoolVar(&s.hangs, "hangs", false, "PreCommit1 never ends")
}

// acted is the script as it is played: it stands between Lotus's worker and its manager, both ways.
type acted struct {
	storiface.WorkerReturn
	script
	lock     sync.Mutex
	failed   bool
	returned map[storiface.CallID]chan struct{}
}

func newActed(asked script, manager storiface.WorkerReturn) *acted {
	return &acted{WorkerReturn: manager, script: asked, returned: map[storiface.CallID]chan struct{}{}}
}

// ReturnSealPreCommit1 tells of the return, which has Go's zero value when the task failed.
func (a *acted) ReturnSealPreCommit1(
	ctx context.Context, call storiface.CallID, out storiface.PreCommit1Out, failure *storiface.CallError,
) error {
	err := a.WorkerReturn.ReturnSealPreCommit1(ctx, call, out, failure)
	say("return", "method", "SealPreCommit1", "bytes", len(out), "failure", failure, "refused", text(err))
	return err
}

// ReturnSealPreCommit2 lets the call's answer go.
func (a *acted) ReturnSealPreCommit2(
	ctx context.Context, call storiface.CallID, cids storiface.SectorCids, failure *storiface.CallError,
) error {
	err := a.WorkerReturn.ReturnSealPreCommit2(ctx, call, cids, failure)
	say("return", "method", "SealPreCommit2", "cids", cids, "failure", failure, "refused", text(err))
	if err == nil {
		close(a.acknowledged(call))
	}
	return err
}

// ReturnSealCommit1 returns a second time when the script says so.
func (a *acted) ReturnSealCommit1(
	ctx context.Context, call storiface.CallID, out storiface.Commit1Out, failure *storiface.CallError,
) error {
	err := a.WorkerReturn.ReturnSealCommit1(ctx, call, out, failure)
	say("return", "method", "SealCommit1", "out", []byte(out), "failure", failure, "refused", text(err))
	if a.twice && err == nil {
		again := a.WorkerReturn.ReturnSealCommit1(ctx, call, out, failure)
		say("return", "method", "SealCommit1", "again", true, "refused", text(again))
	}
	return err
}

func (a *acted) acknowledged(call storiface.CallID) chan struct{} {
	a.lock.Lock()
	defer a.lock.Unlock()
	if a.returned[call] == nil {
		a.returned[call] = make(chan struct{})
	}
	return a.returned[call]
}

// worker gives the API that the manager sees.
func (a *acted) worker(worker api.Worker) api.Worker {
	return &scripted{Worker: worker, acted: a}
}

type scripted struct {
	api.Worker
	acted *acted
}

// SealPreCommit2 answers with the CallID only when the result has been taken already, if the script says so.
func (s *scripted) SealPreCommit2(
	ctx context.Context, sector storiface.SectorRef, phase1 storiface.PreCommit1Out,
) (storiface.CallID, error) {
	call, err := s.Worker.SealPreCommit2(ctx, sector, phase1)
	if err == nil && s.acted.early {
		<-s.acted.acknowledged(call)
	}
	return call, err
}

// executor is Lotus's own, with the script in front.
func (a *acted) executor(worker *sealer.LocalWorker) (storiface.Storage, error) {
	inner, err := sealer.FFIExec()(worker)
	return &sealing{Storage: inner, acted: a}, err
}

type sealing struct {
	storiface.Storage
	acted *acted
}

// SealPreCommit1 fails the first time, or hangs, if the script says so.
func (s *sealing) SealPreCommit1(
	ctx context.Context, sector storiface.SectorRef, ticket abi.SealRandomness, pieces []abi.PieceInfo,
) (storiface.PreCommit1Out, error) {
	say("task", "name", "SealPreCommit1", "sector", sector.ID)
	if s.acted.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.acted.lock.Lock()
	fails := s.acted.fails && !s.acted.failed
	s.acted.failed = true
	s.acted.lock.Unlock()
	if fails {
		return nil, storiface.Err(storiface.ErrTempWorkerRestart, errors.New("worker [name: lotus] restarted"))
	}
	return s.Storage.SealPreCommit1(ctx, sector, ticket, pieces)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
