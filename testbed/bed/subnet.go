package bed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// Indexes name subnets on the host. The bounds keep every derived network inside 10.0.0.0/8
// and out of the ranges that Docker and libvirt use by default.
const (
	firstIndex = 11
	lastIndex  = 99
)

// hostDir holds what all beds of a host share. It is fixed, whatever DAVIT_BED_STATE says:
// two beds with different state directories still compete for the same subnets.
const hostDir = "/var/lib/davit-bed"

// Subnet derives all addresses of one namespace from its index.
type Subnet struct {
	Index int `json:"index"`
}

// Gateway is the host's address on the veth.
func (s Subnet) Gateway() string { return fmt.Sprintf("10.88.%d.1", s.Index) }

// Address is the namespace's address on the veth.
func (s Subnet) Address() string { return fmt.Sprintf("10.88.%d.2", s.Index) }

// PodCIDR is the network the site's pods live in.
func (s Subnet) PodCIDR() string { return fmt.Sprintf("10.89.%d.0/24", s.Index) }

// ServiceCIDR is the network of the site's Services.
func (s Subnet) ServiceCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 128+s.Index) }

// APIService is the address of the Service kubernetes.default.
func (s Subnet) APIService() string { return fmt.Sprintf("10.%d.0.1", 128+s.Index) }

// DNSService is the address of the cluster's DNS.
func (s Subnet) DNSService() string { return fmt.Sprintf("10.%d.0.10", 128+s.Index) }

// Veth is the name of the host's end of the link.
func (s Subnet) Veth() string { return fmt.Sprintf("bed%d", s.Index) }

// hostRecord is what all beds of a host share: who has which subnet, and what to put back at the end.
type hostRecord struct {
	Subnets map[string]int `json:"subnets"` // "<instance>/<node>" to index
	Sysctls sysctls        `json:"sysctls,omitempty"`
}

type sysctls map[string]string

// allocate gives key the lowest free index, or the one it has already.
func (r *hostRecord) allocate(key string, inUse func(int) bool) (Subnet, error) {
	if n, ok := r.Subnets[key]; ok {
		return Subnet{n}, nil
	}
	taken := make(map[int]bool, len(r.Subnets))
	for _, n := range r.Subnets {
		taken[n] = true
	}
	for n := firstIndex; n <= lastIndex; n++ {
		if taken[n] || inUse(n) {
			continue
		}
		if r.Subnets == nil {
			r.Subnets = map[string]int{}
		}
		r.Subnets[key] = n
		return Subnet{n}, nil
	}
	return Subnet{}, fmt.Errorf("allocate subnet for %s: all of 10.88.%d to 10.88.%d are taken; take a bed down with 'bed down --instance NAME' (taken: %v)",
		key, firstIndex, lastIndex, r.keys())
}

func (r *hostRecord) keys() []string {
	keys := make([]string, 0, len(r.Subnets))
	for k := range r.Subnets {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// addressInUse reports whether the host already has an address in the veth network of index n.
func addressInUse(n int) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	_, want, _ := net.ParseCIDR(fmt.Sprintf("10.88.%d.0/24", n))
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && want.Contains(ip.IP) {
			return true
		}
	}
	return false
}

// withHost runs change on the shared record under the host-wide lock and writes the outcome back.
func withHost(change func(*hostRecord) error) error {
	unlock, err := lockFile(filepath.Join(hostDir, "host.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(hostDir, "host.json")
	var rec hostRecord
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read host record: %w", err)
	default:
		if err := json.Unmarshal(data, &rec); err != nil {
			return fmt.Errorf("read host record %s: %w", path, err)
		}
	}
	if err := change(&rec); err != nil {
		return err
	}
	return writeJSON(path, rec)
}

// lockFile takes an exclusive lock that ends with unlock or with the process.
func lockFile(path string) (unlock func(), err error) { return lockWith(path, unix.LOCK_EX) }

func lockWith(path string, how int) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create lock directory: %w", err)
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), how); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Whoever held it before may have deleted the file: then others lock another one.
		mine, err := f.Stat()
		now, statErr := os.Stat(path)
		if err == nil && statErr == nil && os.SameFile(mine, now) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
	}
}

// writeJSON replaces path in one step, so that a reader never sees half a file.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), 0o600)
}

func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
