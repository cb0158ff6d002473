package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/filecoin-project/lotus/api"
	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// runOperate is one command of `lotus-miner`: the same calls in the same order, the same choice among the answers and the
// same words of each line that it prints, but for colours and columns. The commands themselves bring the chain node.
func runOperate(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, api.StorageMiner, string) error{
		"jobs": printJobs, "abort": abortJob, "abort-request": removeRequest, "sched-diag": printSchedule,
		"locks": printLocks, "pledge": pledgeSector, "status": printStatus, "remove": removeSector,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("%q is no command", args)
	}
	info, err := minerInfo()
	if err != nil {
		return err
	}
	miner, closer, err := client.NewStorageMinerRPCV0(ctx, info.rpc("ws"), info.headers())
	if err != nil {
		return err
	}
	defer closer()
	argument := ""
	if len(args) > 1 {
		argument = args[1]
	}
	if err := commands[args[0]](ctx, miner, argument); err != nil {
		return err
	}
	say("done")
	return nil
}

// printJobs is `sealing jobs`.
func printJobs(ctx context.Context, miner api.StorageMiner, _ string) error {
	jobs, err := miner.WorkerJobs(ctx)
	if err != nil {
		return err
	}
	stats, err := miner.WorkerStats(ctx)
	if err != nil {
		return err
	}
	for worker, jobs := range jobs {
		for _, job := range jobs {
			host := job.Hostname
			if stat, known := stats[worker]; known {
				host = stat.Info.Hostname
			}
			if job.Start.IsZero() || time.Since(job.Start) < 0 {
				return fmt.Errorf("a job that began at %s", job.Start)
			}
			say("job", "id", hex.EncodeToString(job.ID.ID[:4]), "sector", job.Sector.Number,
				"worker", hex.EncodeToString(worker[:4]), "host", host, "task", job.Task.Short(), "state", stateOf(job.RunWait))
		}
	}
	return nil
}

func stateOf(runWait int) string {
	switch {
	case runWait > 1:
		return fmt.Sprintf("assigned(%d)", runWait-1)
	case runWait == storiface.RWPrepared:
		return "prepared"
	case runWait == storiface.RWRetDone:
		return "ret-done"
	case runWait == storiface.RWReturned:
		return "returned"
	case runWait == storiface.RWRetWait:
		return "ret-wait"
	}
	return "running"
}

// abortJob is `sealing abort`: the job whose id begins so.
func abortJob(ctx context.Context, miner api.StorageMiner, prefix string) error {
	jobs, err := miner.WorkerJobs(ctx)
	if err != nil {
		return err
	}
	for _, jobs := range jobs {
		for _, job := range jobs {
			if strings.HasPrefix(job.ID.ID.String(), prefix) {
				say("said", "text", fmt.Sprintf("aborting job %s, task %s, sector %d, running on host %s",
					job.ID.String(), job.Task.Short(), job.Sector.Number, job.Hostname))
				return miner.SealingAbort(ctx, job.ID)
			}
		}
	}
	return errors.New("job with specified id prefix not found")
}

// removeRequest is `sealing abort --sched`.
func removeRequest(ctx context.Context, miner api.StorageMiner, id string) error {
	return miner.SealingRemoveRequest(ctx, uuid.Must(uuid.Parse(id)))
}

// printSchedule is `sealing sched-diag`, which prints what it gets.
func printSchedule(ctx context.Context, miner api.StorageMiner, _ string) error {
	schedule, err := miner.SealingSchedDiag(ctx, false)
	if err != nil {
		return err
	}
	say("schedule", "is", schedule)
	return nil
}

// printLocks is `storage locks`.
func printLocks(ctx context.Context, miner api.StorageMiner, _ string) error {
	locks, err := miner.StorageGetLocks(ctx)
	if err != nil {
		return err
	}
	for _, lock := range locks.Locks {
		status, err := miner.SectorsStatus(ctx, lock.Sector.Number, false)
		if err != nil {
			return fmt.Errorf("getting sector status(%d): %w", lock.Sector.Number, err)
		}
		held := ""
		for i := 0; i < storiface.FileTypes; i++ {
			if lock.Write[i] > 0 {
				held += fmt.Sprintf("%s(W) ", storiface.SectorFileType(1<<i))
			}
			if lock.Read[i] > 0 {
				held += fmt.Sprintf("%s(R:%d) ", storiface.SectorFileType(1<<i), lock.Read[i])
			}
		}
		say("lock", "sector", lock.Sector.Number, "state", status.State, "held", held)
	}
	return nil
}

// pledgeSector is `sectors pledge`.
func pledgeSector(ctx context.Context, miner api.StorageMiner, _ string) error {
	sector, err := miner.PledgeSector(ctx)
	if err != nil {
		return err
	}
	say("said", "text", fmt.Sprintln("Created CC sector: ", sector.Number))
	return nil
}

// printStatus is the part of `sectors status` that is about now.
func printStatus(ctx context.Context, miner api.StorageMiner, number string) error {
	sector, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return err
	}
	status, err := miner.SectorsStatus(ctx, abi.SectorNumber(sector), false)
	if err != nil {
		return err
	}
	say("status", "sector", status.SectorID, "state", status.State, "error", status.LastErr)
	return nil
}

// removeSector is `sectors remove --really-do-it`.
func removeSector(ctx context.Context, miner api.StorageMiner, number string) error {
	sector, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return err
	}
	return miner.SectorRemove(ctx, abi.SectorNumber(sector))
}
