// A network and IPAM plugin on Docker's own helper library, so that its reading of the protocol meets darid's.
//
// helpers SOCKET: serves both subsystems there. Every endpoint is a veth pair whose near end stays in the host.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
)

const gateway = "10.210.0.1"

type plugin struct {
	sync.Mutex
	networks  map[string]*network.CreateNetworkRequest
	endpoints map[string]string
	taken     map[string]bool
}

func ip(words ...string) error {
	out, err := exec.Command("ip", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %v: %s", words, out)
	}
	return nil
}

func pair(endpoint string) (string, string) { return "gh" + endpoint[:10], "gc" + endpoint[:10] }

func (p *plugin) GetCapabilities() (*network.CapabilitiesResponse, error) {
	return &network.CapabilitiesResponse{Scope: network.LocalScope, ConnectivityScope: network.LocalScope}, nil
}

func (p *plugin) CreateNetwork(r *network.CreateNetworkRequest) error {
	p.Lock()
	defer p.Unlock()
	generic, ok := r.Options["com.docker.network.generic"].(map[string]interface{})
	if !ok || generic["color"] != "red" {
		return errors.New("give -o color=red")
	}
	if len(r.IPv4Data) != 1 || r.IPv4Data[0].Gateway == "" {
		return errors.New("one subnet with a gateway is needed")
	}
	p.networks[r.NetworkID] = r
	return nil
}

func (p *plugin) DeleteNetwork(r *network.DeleteNetworkRequest) error {
	p.Lock()
	defer p.Unlock()
	delete(p.networks, r.NetworkID)
	return nil
}

func (p *plugin) CreateEndpoint(r *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	p.Lock()
	defer p.Unlock()
	if p.networks[r.NetworkID] == nil || r.Interface == nil || r.Interface.Address == "" {
		return nil, errors.New("unknown network, or no address")
	}
	near, far := pair(r.EndpointID)
	if err := ip("link", "add", near, "type", "veth", "peer", "name", far); err != nil {
		return nil, err
	}
	if err := ip("addr", "add", gateway+"/32", "peer", r.Interface.Address[:len(r.Interface.Address)-3], "dev", near); err != nil {
		return nil, err
	}
	p.endpoints[r.EndpointID] = r.Interface.Address
	return &network.CreateEndpointResponse{Interface: &network.EndpointInterface{MacAddress: "02:aa:bb:cc:dd:01"}}, ip("link", "set", near, "up")
}

func (p *plugin) DeleteEndpoint(r *network.DeleteEndpointRequest) error {
	p.Lock()
	defer p.Unlock()
	near, _ := pair(r.EndpointID)
	delete(p.endpoints, r.EndpointID)
	return ip("link", "delete", near)
}

func (p *plugin) EndpointInfo(r *network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

func (p *plugin) Join(r *network.JoinRequest) (*network.JoinResponse, error) {
	if _, err := os.Stat(r.SandboxKey); err != nil {
		return nil, err
	}
	_, far := pair(r.EndpointID)
	return &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: far, DstPrefix: "eth"},
		Gateway:       gateway,
		StaticRoutes:  []*network.StaticRoute{{Destination: "10.211.0.0/24", RouteType: 1}},
	}, nil
}

func (p *plugin) Leave(r *network.LeaveRequest) error                 { return nil }
func (p *plugin) DiscoverNew(*network.DiscoveryNotification) error    { return nil }
func (p *plugin) DiscoverDelete(*network.DiscoveryNotification) error { return nil }
func (p *plugin) ProgramExternalConnectivity(*network.ProgramExternalConnectivityRequest) error {
	return nil
}
func (p *plugin) RevokeExternalConnectivity(*network.RevokeExternalConnectivityRequest) error {
	return nil
}
func (p *plugin) AllocateNetwork(*network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
	return &network.AllocateNetworkResponse{}, nil
}
func (p *plugin) FreeNetwork(*network.FreeNetworkRequest) error { return nil }

type pools struct{ *plugin }

func (p pools) GetCapabilities() (*ipam.CapabilitiesResponse, error) {
	return &ipam.CapabilitiesResponse{RequiresMACAddress: false}, nil
}

func (p pools) GetDefaultAddressSpaces() (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: "l", GlobalDefaultAddressSpace: "g"}, nil
}

func (p pools) RequestPool(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	if r.AddressSpace != "l" || r.V6 {
		return nil, errors.New("unknown address space")
	}
	return &ipam.RequestPoolResponse{PoolID: "p", Pool: "10.210.0.0/24"}, nil
}

func (p pools) ReleasePool(r *ipam.ReleasePoolRequest) error { return nil }

func (p pools) RequestAddress(r *ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error) {
	p.Lock()
	defer p.Unlock()
	for n := 1; n < 255; n++ {
		address := fmt.Sprintf("10.210.0.%d", n)
		if !p.taken[address] && (r.Address == "" || r.Address == address) {
			p.taken[address] = true
			return &ipam.RequestAddressResponse{Address: address + "/24"}, nil
		}
	}
	return nil, fmt.Errorf("no address left")
}

func (p pools) ReleaseAddress(r *ipam.ReleaseAddressRequest) error {
	p.Lock()
	defer p.Unlock()
	delete(p.taken, r.Address)
	return nil
}

func main() {
	p := &plugin{networks: map[string]*network.CreateNetworkRequest{}, endpoints: map[string]string{}, taken: map[string]bool{}}
	// Each handler answers /Plugin.Activate for itself, so they are two plugins.
	networks, addresses := network.NewHandler(p), ipam.NewHandler(pools{p})
	serve := func(path string, handler interface{ Serve(net.Listener) error }) {
		listener, err := net.Listen("unix", path)
		if err != nil {
			panic(err)
		}
		go func() { panic(handler.Serve(listener)) }()
	}
	serve(os.Args[1]+"/helped.sock", networks)
	serve(os.Args[1]+"/helpedpools.sock", addresses)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		p.Lock()
		defer p.Unlock()
		fmt.Fprintf(w, "%d %d %d\n", len(p.networks), len(p.endpoints), len(p.taken))
	})
	listener, err := net.Listen("unix", os.Args[1]+"/state")
	if err != nil {
		panic(err)
	}
	panic(http.Serve(listener, nil))
}
