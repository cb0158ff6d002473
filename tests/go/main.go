// A peer of Sealyard made of Lotus's own published code: its worker, its manager and its API clients, without a chain
// and without the proofs library. It says what happens on standard output, a JSON object per line; its logs go to
// standard error. It exits with 1 when something is not as Lotus needs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	logging "github.com/ipfs/go-log/v2"
)

func main() {
	logging.SetAllLoggers(logging.LevelWarn)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	roles := map[string]func(context.Context, []string) error{
		"worker": runWorker, "miner": runMiner, "client": runClient, "operate": runOperate,
		"index": runIndex, "trailers": runTrailers,
	}
	role, args := "", os.Args[1:]
	if len(args) > 0 {
		role, args = args[0], args[1:]
	}
	run, known := roles[role]
	if !known {
		fmt.Fprintln(os.Stderr, "usage: peer worker|miner|client|operate|index|trailers [flags]; the manager is named by MINER_API_INFO")
		os.Exit(2)
	}
	if err := run(ctx, args); err != nil && ctx.Err() == nil {
		say("failed", "error", err.Error())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func flagSet(role string) *flag.FlagSet {
	return flag.NewFlagSet(role, flag.ExitOnError)
}

var saying sync.Mutex

// say tells the test of an event; pairs are keys and values.
func say(event string, pairs ...any) {
	told := map[string]any{"event": event}
	for i := 0; i+1 < len(pairs); i += 2 {
		told[pairs[i].(string)] = pairs[i+1]
	}
	text, err := json.Marshal(told)
	if err != nil {
		text = fmt.Appendf(nil, `{"event":"failed","error":%q}`, err.Error())
	}
	saying.Lock()
	defer saying.Unlock()
	fmt.Println(string(text))
}
