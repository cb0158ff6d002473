package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/filecoin-project/go-jsonrpc/auth"
	"github.com/filecoin-project/lotus/api"
	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/api/v0api"
	"github.com/filecoin-project/lotus/cmd/lotus-worker/sealworker"
	"github.com/filecoin-project/lotus/storage/paths"
	"github.com/filecoin-project/lotus/storage/sealer"
	"github.com/filecoin-project/lotus/storage/sealer/sealtasks"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// runWorker is a Lotus worker: what `lotus-worker run` puts together, in its order, with sealing done by the executor
// of the program under test and with the liberties of a script.
func runWorker(ctx context.Context, args []string) error {
	flags := flagSet("worker")
	home := flags.String("repo", "", "its directory")
	name := flags.String("name", "lotus", "its name")
	tasks := flags.String("tasks", "", "task types, separated by commas")
	var asked script
	asked.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	info, err := minerInfo()
	if err != nil {
		return err
	}
	miner, closer, err := client.NewStorageMinerRPCV0(ctx, info.rpc("http"), info.headers())
	if err != nil {
		return err
	}
	defer closer()
	if err := suits(ctx, miner); err != nil {
		return err
	}
	repo, err := openRepo(*home, storiface.LocalStorageMeta{Weight: 10, CanSeal: true})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	local, err := paths.NewLocal(ctx, repo, miner, []string{"http://" + address + "/remote"})
	if err != nil {
		return err
	}
	remote := paths.NewRemote(local, miner, info.headers(), 5, &paths.DefaultPartialFileHandler{})
	acted := newActed(asked, miner)
	config := sealer.WorkerConfig{TaskTypes: taskTypes(*tasks), Name: *name}
	worker := &sealworker.Worker{
		LocalWorker: sealer.NewLocalWorkerWithExecutor(
			acted.executor, config, os.LookupEnv, remote, local, miner, acted, repo.calls("/worker/calls")),
		LocalStore: local,
		Storage:    repo,
	}
	go serveWorker(listener, miner, local, acted.worker(worker))
	say("started", "address", address)
	return keepRegistered(ctx, miner, local, worker, "http://"+address+"/rpc/v0")
}

// suits asks what a Lotus worker asks before it opens its repo.
func suits(ctx context.Context, miner v0api.StorageMiner) error {
	version, err := miner.Version(ctx)
	if err != nil {
		return err
	}
	if version.APIVersion != api.MinerAPIVersion0 {
		return fmt.Errorf("the miner speaks %s, not %s", version.APIVersion, api.MinerAPIVersion0)
	}
	actor, err := miner.ActorAddress(ctx)
	if err != nil {
		return err
	}
	size, err := miner.ActorSectorSize(ctx, actor)
	if err != nil {
		return err
	}
	say("miner", "version", version, "actor", actor.String(), "size", size)
	return nil
}

// serveWorker is the worker's port: the API behind AuthVerify, and the files for whoever is an admin.
func serveWorker(listener net.Listener, miner v0api.StorageMiner, local *paths.Local, worker api.Worker) {
	files := &paths.FetchHandler{Local: local, PfHandler: &paths.DefaultPartialFileHandler{}}
	remote := func(w http.ResponseWriter, r *http.Request) {
		if !auth.HasPerm(r.Context(), nil, api.PermAdmin) {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(struct{ Error string }{"unauthorized: missing admin permission"})
			return
		}
		say("remote", "verb", r.Method, "target", r.URL.String())
		files.ServeHTTP(w, r)
	}
	server := &http.Server{
		Handler:           sealworker.WorkerHandler(miner.AuthVerify, remote, worker, true),
		ReadHeaderTimeout: 30 * time.Second,
	}
	if err := server.Serve(listener); err != nil {
		say("failed", "error", err.Error())
	}
}

// keepRegistered is the worker's life beside its work: it registers when it is quiet, polls the miner's session, and
// when that changes it declares its files again and registers anew.
func keepRegistered(
	ctx context.Context, miner v0api.StorageMiner, local *paths.Local, worker *sealworker.Worker, url string,
) error {
	known, err := miner.Session(ctx)
	if err != nil {
		return err
	}
	beat := time.NewTicker(paths.HeartbeatInterval)
	defer beat.Stop()
	quiet := quietOf(worker)
	for {
		session, err := miner.Session(ctx)
		switch {
		case err != nil:
			say("unreachable", "error", err.Error())
		case session != known:
			known = session
			if err := local.Redeclare(ctx, nil, false); err != nil {
				return err
			}
			quiet = quietOf(worker)
		}
		select {
		case <-quiet:
			if err := miner.WorkerConnect(ctx, url); err != nil {
				return fmt.Errorf("registering: %w", err)
			}
			say("registered", "url", url)
			quiet = nil
		case <-beat.C:
		case <-worker.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func quietOf(worker *sealworker.Worker) <-chan struct{} {
	quiet := make(chan struct{})
	go func() {
		worker.LocalWorker.WaitQuiet()
		close(quiet)
	}()
	return quiet
}

func taskTypes(list string) []sealtasks.TaskType {
	var types []sealtasks.TaskType
	for _, name := range strings.Split(list, ",") {
		types = append(types, sealtasks.TaskType(name))
	}
	return types
}
