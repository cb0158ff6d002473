package main

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// apiInfo is what MINER_API_INFO names: a token and where to dial.
type apiInfo struct {
	token string
	host  string
}

// minerInfo reads MINER_API_INFO: a token, a colon, and a multiaddress or a URL.
func minerInfo() (apiInfo, error) {
	token, address, found := strings.Cut(os.Getenv("MINER_API_INFO"), ":")
	if !found {
		return apiInfo{}, errors.New("MINER_API_INFO is not TOKEN:ADDRESS")
	}
	if parsed, err := multiaddr.NewMultiaddr(address); err == nil {
		_, host, err := manet.DialArgs(parsed)
		return apiInfo{token: token, host: host}, err
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return apiInfo{}, err
	}
	return apiInfo{token: token, host: parsed.Host}, nil
}

// rpc is the API's address: with scheme http as workers dial it, with ws as the command line does.
func (info apiInfo) rpc(scheme string) string {
	return scheme + "://" + info.host + "/rpc/v0"
}

func (info apiInfo) headers() http.Header {
	return http.Header{"Authorization": {"Bearer " + info.token}}
}
