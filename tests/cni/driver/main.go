// Command driver makes one call of a container runtime with the CNI project's own library: what containerd 2 and CRI-O
// do, so that a plugin is driven by code that is not ours. The call is the one argument, as JSON; the answer is JSON on
// stdout. A plugin's error is an answer; the exit code is 1 only when the call itself made no sense.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// call is what the caller wants: a verb of the specification, for a list, and for a container where it has one.
type call struct {
	Verb string `json:"verb"`
	// List is the network configuration list.
	List json.RawMessage `json:"list"`
	// Path is where the plugins are.
	Path []string `json:"path"`
	// Cache is the library's own directory: it remembers there what ADD answered.
	Cache        string                 `json:"cache"`
	ContainerID  string                 `json:"containerID"`
	NetNS        string                 `json:"netns"`
	IfName       string                 `json:"ifname"`
	Args         [][2]string            `json:"args"`
	Capabilities map[string]interface{} `json:"capabilities"`
	// Valid is what GC is to leave alone.
	Valid []types.GCAttachment `json:"valid"`
}

// answer is what the library made of it.
type answer struct {
	// Result is that of ADD, or what the library remembers of it (verb CACHED).
	Result types.Result `json:"result,omitempty"`
	// Versions is what each plugin of the list says to VERSION.
	Versions map[string][]string `json:"versions,omitempty"`
	// ListVersion is the version that the library chose for the list.
	ListVersion string `json:"listVersion"`
	// Error is a plugin's error object, or code 0 and the words of the library.
	Error *types.Error `json:"error,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: driver CALL, which is JSON")
	}
	var wanted call
	if err := json.Unmarshal([]byte(os.Args[1]), &wanted); err != nil {
		return err
	}
	list, err := libcni.NetworkConfFromBytes(wanted.List)
	if err != nil {
		return err
	}
	said, err := wanted.make(list)
	if err != nil {
		said.Error = pluginError(err)
	}
	said.ListVersion = list.CNIVersion
	return json.NewEncoder(os.Stdout).Encode(said)
}

// make is the one call; its error is the plugin's or the library's.
func (c call) make(list *libcni.NetworkConfigList) (answer, error) {
	ctx := context.Background()
	cni := libcni.NewCNIConfigWithCacheDir(c.Path, c.Cache, nil)
	rt := &libcni.RuntimeConf{
		ContainerID:    c.ContainerID,
		NetNS:          c.NetNS,
		IfName:         c.IfName,
		Args:           c.Args,
		CapabilityArgs: c.Capabilities,
	}
	switch c.Verb {
	case "ADD":
		result, err := cni.AddNetworkList(ctx, list, rt)
		return answer{Result: result}, err
	case "CHECK":
		return answer{}, cni.CheckNetworkList(ctx, list, rt)
	case "DEL":
		return answer{}, cni.DelNetworkList(ctx, list, rt)
	case "GC":
		return answer{}, cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: c.Valid})
	case "STATUS":
		return answer{}, cni.GetStatusNetworkList(ctx, list)
	case "VERSION":
		return versions(ctx, cni, list)
	case "VALIDATE":
		_, err := cni.ValidateNetworkList(ctx, list)
		return answer{}, err
	case "CACHED":
		result, err := cni.GetNetworkListCachedResult(list, rt)
		return answer{Result: result}, err
	}
	return answer{}, fmt.Errorf("%q is no verb", c.Verb)
}

func versions(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) (answer, error) {
	found := map[string][]string{}
	for _, plugin := range list.Plugins {
		info, err := cni.GetVersionInfo(ctx, plugin.Network.Type)
		if err != nil {
			return answer{}, err
		}
		found[plugin.Network.Type] = info.SupportedVersions()
	}
	return answer{Versions: found}, nil
}

// pluginError finds the error object that a plugin printed. The library wraps and joins errors, and prefixes the
// message with the plugin's name.
func pluginError(err error) *types.Error {
	var found *types.Error
	if errors.As(err, &found) {
		return found
	}
	return &types.Error{Code: 0, Msg: err.Error()}
}
