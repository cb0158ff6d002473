package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/google/uuid"

	"github.com/filecoin-project/go-jsonrpc/auth"
	"github.com/filecoin-project/go-state-types/abi"

	"github.com/filecoin-project/lotus/api"
	"github.com/filecoin-project/lotus/api/client"
	"github.com/filecoin-project/lotus/chain/types"
	"github.com/filecoin-project/lotus/storage/sealer/storiface"
)

// asked is one call of a miner's API by its Go name.
type asked struct {
	method string
	args   []any
}

// runClient calls a manager as Lotus's command line does: over a websocket, by Lotus's client, into Lotus's types. Each
// answer is also taken as plain JSON: every key of it must be one that Go knows, and Go must write it back the same.
func runClient(ctx context.Context, args []string) error {
	flags := flagSet("client")
	number := flags.Uint64("sector", 0, "a sector that the manager knows")
	store := flags.String("storage", "", "a storage path that the manager knows")
	if err := flags.Parse(args); err != nil {
		return err
	}
	info, err := minerInfo()
	if err != nil {
		return err
	}
	for _, scheme := range []string{"ws", "http"} {
		miner, closer, err := client.NewStorageMinerRPCV0(ctx, info.rpc(scheme), info.headers())
		if err != nil {
			return err
		}
		for _, call := range commandLine(info.token, abi.SectorNumber(*number), storiface.ID(*store)) {
			tell(ctx, info, scheme, miner, call)
		}
		if scheme == "ws" {
			// A channel, which only a websocket can carry; it must stay open.
			closing, err := miner.Closing(ctx)
			if err != nil {
				return err
			}
			select {
			case <-closing:
				return errors.New("Closing says that the manager closes")
			default:
			}
		}
		closer()
	}
	say("done")
	return nil
}

// commandLine is what the commands that need no full node call, and the rest of the API that needs none.
func commandLine(token string, number abi.SectorNumber, store storiface.ID) []asked {
	id := abi.SectorID{Miner: minerID, Number: number}
	ref := storiface.SectorRef{ID: id, ProofType: abi.RegisteredSealProof_StackedDrg2KiBV1_1}
	all := storiface.FTUnsealed | storiface.FTSealed | storiface.FTCache
	unknown := storiface.CallID{Sector: id, ID: uuid.New()}
	calls := []asked{
		{"Version", nil}, {"Session", nil}, {"ActorAddress", nil}, {"StartTime", nil}, {"Discover", nil},
		{"AuthVerify", []any{token}}, {"StorageAuthVerify", []any{token}},
		{"AuthNew", []any{[]auth.Permission{api.PermRead}}},
		{"RuntimeSubsystems", nil}, {"ActorAddressConfig", nil},
		{"LogList", nil}, {"LogAlerts", nil}, {"LogSetLevel", []any{"rpc", "info"}},
		{"WorkerStats", nil}, {"WorkerJobs", nil},
		{"SealingSchedDiag", []any{false}}, {"SealingSchedDiag", []any{true}},
		{"SealingAbort", []any{unknown}}, {"SealingRemoveRequest", []any{uuid.New()}},
		{"StorageLocal", nil}, {"StorageList", nil}, {"StorageGetLocks", nil},
		{"StorageInfo", []any{store}}, {"StorageStat", []any{store}},
		{"StorageFindSector", []any{id, all, abi.SectorSize(2 << 10), true}},
		{"StorageBestAlloc", []any{storiface.FTSealed, abi.SectorSize(2 << 10), storiface.PathSealing, abi.ActorID(minerID)}},
		{"StorageTryLock", []any{id, storiface.FTSealed, storiface.FTNone}},
		{"StorageLock", []any{id, storiface.FTSealed, storiface.FTNone}},
		{"StorageRedeclareLocal", []any{(*storiface.ID)(nil), false}},
		{"SectorsList", nil}, {"SectorsSummary", nil}, {"SectorsRefs", nil},
		{"SectorsListInStates", []any{[]api.SectorState{"Committing"}}},
		{"SectorsStatus", []any{number, false}},
	}
	return append(calls, batches(number, ref)...)
}

// batches are the calls about what Lotus gathers for the chain, about numbers and about deals.
func batches(number abi.SectorNumber, ref storiface.SectorRef) []asked {
	return []asked{
		{"SectorPreCommitPending", nil}, {"SectorCommitPending", nil}, {"SectorTerminatePending", nil},
		{"SectorPreCommitFlush", nil}, {"SectorCommitFlush", nil}, {"SectorTerminateFlush", nil},
		{"SectorGetSealDelay", nil}, {"SectorNumReservations", nil},
		{"SectorNumFree", []any{"nobody's"}},
		{"SectorStartSealing", []any{number}}, {"SectorMarkForUpgrade", []any{number, true}},
		{"SectorAbortUpgrade", []any{number}},
		// Of one that is not there: what is there would be removed.
		{"SectorRemove", []any{number + 1000}}, {"ComputeWindowPoSt", []any{uint64(0), types.EmptyTSK}},
		{"SectorsUpdate", []any{number, api.SectorState("Proving")}},
		{"SectorsUnsealPiece", []any{ref, storiface.UnpaddedByteIndex(0), whole, ticket, nil}},
	}
}

// tell calls once by Lotus's client and once by hand, and says what came.
func tell(ctx context.Context, info apiInfo, scheme string, miner api.StorageMiner, call asked) {
	out, failed := typed(ctx, miner, call)
	raw, err := plain(ctx, info, call)
	if err != nil {
		say("answer", "method", call.method, "over", scheme, "broken", err.Error())
		return
	}
	differs := ""
	if raw.Error == nil && out != nil {
		if err := same(raw.Result, out); err != nil {
			differs = err.Error()
		}
	}
	say("answer", "method", call.method, "over", scheme, "error", text(failed), "result", raw.Result,
		"fault", raw.Error, "differs", differs)
}

// typed calls by name; gives the result's type, nil for a method without one.
func typed(ctx context.Context, miner api.StorageMiner, call asked) (reflect.Type, error) {
	method := reflect.ValueOf(miner).MethodByName(call.method)
	in := []reflect.Value{reflect.ValueOf(ctx)}
	for at, arg := range call.args {
		if arg == nil {
			in = append(in, reflect.Zero(method.Type().In(at+1)))
			continue
		}
		in = append(in, reflect.ValueOf(arg))
	}
	out := method.Call(in)
	err, _ := out[len(out)-1].Interface().(error)
	if len(out) == 1 {
		return nil, err
	}
	return out[0].Type(), err
}

type answer struct {
	Result json.RawMessage
	Error  *struct {
		Code    int
		Message string
	}
}

func plain(ctx context.Context, info apiInfo, call asked) (answer, error) {
	params := call.args
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "Filecoin." + call.method, "params": params,
	})
	if err != nil {
		return answer{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, info.rpc("http"), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header = info.headers()
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	var known answer
	if err := json.Unmarshal(got, &known); err != nil {
		return answer{}, fmt.Errorf("%s: %q: %w", response.Status, got, err)
	}
	return known, nil
}

// same reads JSON into Go's type, which must know every key, and writes it again: nothing may be lost or added.
func same(raw json.RawMessage, of reflect.Type) error {
	value := reflect.New(of)
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if err := strict.Decode(value.Interface()); err != nil {
		return err
	}
	again, err := json.Marshal(value.Elem().Interface())
	if err != nil {
		return err
	}
	var before, after any
	if err := exact(raw, &before); err != nil {
		return err
	}
	if err := exact(again, &after); err != nil {
		return err
	}
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("Go writes %s", again)
	}
	return nil
}

// exact decodes with every digit of a number kept; 1.0 and 1 are the same fraction.
func exact(text []byte, into *any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	*into = trimmed(*into)
	return nil
}

func trimmed(value any) any {
	switch known := value.(type) {
	case json.Number:
		return strings.TrimSuffix(known.String(), ".0")
	case []any:
		for at := range known {
			known[at] = trimmed(known[at])
		}
	case map[string]any:
		for key := range known {
			known[key] = trimmed(known[key])
		}
	}
	return value
}
