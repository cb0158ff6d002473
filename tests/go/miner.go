package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-jsonrpc/auth"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/gbrlsnchs/jwt/v3"
	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/filecoin-project/lotus/api"
	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/lib/rpcenc"
	"github.com/filecoin-project/lotus/node/config"
	"github.com/filecoin-project/lotus/storage/paths"
	"github.com/filecoin-project/lotus/storage/sealer"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// unimplemented answers what this miner lacks; its methods lie deeper than what the miner has, and so give way to it.
type unimplemented struct{ deeper }

type deeper struct{ api.StorageMinerStruct }

// miner is the part of a Lotus miner that workers talk to: Lotus's own manager with its scheduler, index and storage.
// It has no chain; its sectors are whatever a test seals.
type miner struct {
	unimplemented
	*paths.MemIndex
	storiface.WorkerReturn
	manager *sealer.Manager
	remote  *paths.Remote
	secret  *jwt.HMACSHA
	session uuid.UUID
	joined  chan struct{}
}

// runMiner serves until it is stopped, and seals a sector once a worker has joined.
func runMiner(ctx context.Context, args []string) error {
	flags := flagSet("miner")
	home := flags.String("repo", "", "its directory, which is a path that stores")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().(*net.TCPAddr)
	m, err := newMiner(ctx, *home, address.String())
	if err != nil {
		return err
	}
	token, err := m.AuthNew(ctx, api.AllPermissions)
	if err != nil {
		return err
	}
	go m.serve(listener)
	say("listening", "api", fmt.Sprintf("%s:/ip4/127.0.0.1/tcp/%d/http", token, address.Port))
	select {
	case <-m.joined:
	case <-ctx.Done():
		return nil
	}
	if err := m.seal(ctx); err != nil {
		return err
	}
	if err := m.pushThrough(ctx, address.String(), string(token)); err != nil {
		return err
	}
	say("done")
	<-ctx.Done()
	return nil
}

func newMiner(ctx context.Context, home, address string) (*miner, error) {
	m := &miner{
		MemIndex: paths.NewMemIndex(nil),
		secret:   jwt.NewHS256([]byte(uuid.NewString())),
		session:  uuid.New(),
		joined:   make(chan struct{}, 1),
	}
	repo, err := openRepo(home, storiface.LocalStorageMeta{Weight: 10, CanStore: true})
	if err != nil {
		return nil, err
	}
	local, err := paths.NewLocal(ctx, repo, m.MemIndex, []string{"http://" + address + "/remote"})
	if err != nil {
		return nil, err
	}
	token, err := m.AuthNew(ctx, api.AllPermissions)
	if err != nil {
		return nil, err
	}
	m.remote = paths.NewRemote(local, m.MemIndex, apiInfo{token: string(token)}.headers(), 5, &paths.DefaultPartialFileHandler{})
	settings := config.SealerConfig{LocalWorkerName: "miner", Assigner: "utilization"}
	m.manager, err = sealer.New(
		ctx, local, m.remote, repo, m.MemIndex, settings, config.ProvingConfig{},
		repo.calls("/worker/calls"), repo.calls("/stmgr/calls"))
	m.WorkerReturn = m.manager
	return m, err
}

// serve is the miner's port as Lotus's handler lays it out.
func (m *miner) serve(listener net.Listener) {
	readers, option := rpcenc.ReaderParamDecoder()
	server := jsonrpc.NewServer(jsonrpc.WithServerErrors(api.RPCErrors), option)
	server.Register("Filecoin", api.PermissionedStorMinerAPI(m))
	router := mux.NewRouter()
	router.Handle("/rpc/v0", server)
	router.Handle("/rpc/streams/v0/push/{uuid}", readers)
	router.PathPrefix("/remote").HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !auth.HasPerm(r.Context(), nil, api.PermAdmin) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		say("remote", "verb", r.Method, "target", r.URL.String())
		m.manager.ServeHTTP(w, r)
	})
	handler := &auth.Handler{Verify: m.AuthVerify, Next: router.ServeHTTP}
	if err := (&http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}).Serve(listener); err != nil {
		say("failed", "error", err.Error())
	}
}

type allowed struct{ Allow []auth.Permission }

// AuthVerify says what a token allows.
func (m *miner) AuthVerify(_ context.Context, token string) ([]auth.Permission, error) {
	var known allowed
	if _, err := jwt.Verify([]byte(token), m.secret, &known); err != nil {
		return nil, fmt.Errorf("JWT Verification failed: %w", err)
	}
	return known.Allow, nil
}

// AuthNew mints a token.
func (m *miner) AuthNew(_ context.Context, perms []auth.Permission) ([]byte, error) {
	return jwt.Sign(&allowed{Allow: perms}, m.secret)
}

// Version is a miner's.
func (m *miner) Version(context.Context) (api.APIVersion, error) {
	return api.APIVersion{Version: "peer", APIVersion: api.MinerAPIVersion0, BlockDelay: 30, Agent: "peer"}, nil
}

// Session is new with the process.
func (m *miner) Session(context.Context) (uuid.UUID, error) { return m.session, nil }

// ActorAddress is t01000.
func (m *miner) ActorAddress(context.Context) (address.Address, error) {
	return address.NewIDAddress(minerID)
}

// ActorSectorSize is 2 KiB.
func (m *miner) ActorSectorSize(context.Context, address.Address) (abi.SectorSize, error) {
	return 2 << 10, nil
}

// ComputeDataCid has a worker compute a piece's commitment.
func (m *miner) ComputeDataCid(
	ctx context.Context, size abi.UnpaddedPieceSize, data storiface.Data,
) (abi.PieceInfo, error) {
	return m.manager.DataCid(ctx, size, data)
}

// WorkerConnect dials the worker back with a token of its own and hands it to the scheduler.
func (m *miner) WorkerConnect(ctx context.Context, url string) error {
	token, err := m.AuthNew(ctx, []auth.Permission{api.PermAdmin})
	if err != nil {
		return err
	}
	worker, closer, err := client.NewWorkerRPCV0(context.Background(), url, apiInfo{token: string(token)}.headers())
	if err != nil {
		return err
	}
	version, err := worker.Version(ctx)
	if err != nil {
		return err
	}
	if !version.EqMajorMinor(api.WorkerAPIVersion0) {
		return fmt.Errorf("unsupported worker api version: %s", version)
	}
	info, err := worker.Info(ctx)
	if err != nil {
		return err
	}
	if err := m.manager.AddWorker(ctx, &remoteWorker{Worker: worker, closer: closer}); err != nil {
		return err
	}
	say("joined", "url", url, "hostname", info.Hostname)
	select {
	case m.joined <- struct{}{}:
	default:
	}
	return nil
}

type remoteWorker struct {
	api.Worker
	closer jsonrpc.ClientCloser
}

// Close ends the connection.
func (w *remoteWorker) Close() error {
	w.closer()
	return nil
}
