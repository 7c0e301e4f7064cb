// Package host is what all beds of a machine share: subnets, kernel settings, locks, and files that are replaced in one step.
package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Indexes name subnets on the host. The bounds keep every derived network inside 10.0.0.0/8
// and out of the ranges that Docker and libvirt use by default.
const (
	firstIndex = 11
	lastIndex  = 99
)

// Dir holds what all beds of a host share. It is fixed, whatever DAVIT_BED_STATE says:
// two beds with different state directories still compete for the same subnets.
const Dir = "/var/lib/davit-bed"

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

// Record is what all beds of a host share: who has which subnet, and what to put back at the end.
type Record struct {
	Subnets map[string]int    `json:"subnets"`           // "<instance>/<node>" to index
	Sysctls map[string]string `json:"sysctls,omitempty"` // as they were before the first bed came
}

// Allocate gives key the lowest free index, or the one it has already.
func (r *Record) Allocate(key string, inUse func(int) bool) (Subnet, error) {
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

func (r *Record) keys() []string {
	keys := make([]string, 0, len(r.Subnets))
	for k := range r.Subnets {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// AddressInUse reports whether the host already has an address in the veth network of index n.
func AddressInUse(n int) bool {
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

// Update runs change on the shared record under the host-wide lock and writes the outcome back.
func Update(change func(*Record) error) error {
	unlock, err := Lock(filepath.Join(Dir, "host.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(Dir, "host.json")
	var rec Record
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
	return WriteJSON(path, rec)
}

// Lock takes an exclusive lock that ends with unlock or with the process.
func Lock(path string) (unlock func(), err error) { return lock(path, unix.LOCK_EX) }

// LockShared takes a lock that others may share.
func LockShared(path string) (unlock func(), err error) { return lock(path, unix.LOCK_SH) }

func lock(path string, how int) (unlock func(), err error) {
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

// WriteJSON replaces path in one step, so that a reader never sees half a file.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'), 0o600)
}

// WriteFile replaces path in one step, and makes its directory.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
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

// SetSysctls writes what differs. Optional ones may be missing in this kernel or read-only in a namespace.
func SetSysctls(need, optional map[string]string) error {
	for name, value := range need {
		if _, err := setSysctl(name, value); err != nil {
			return err
		}
	}
	for name, value := range optional {
		_, _ = setSysctl(name, value)
	}
	return nil
}

// setSysctl returns the value that was there before.
func setSysctl(name, value string) (old string, err error) {
	path := filepath.Join("/proc/sys", name)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	old = strings.TrimSpace(string(data))
	if old == value {
		return old, nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return old, fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	return old, nil
}

// hostSysctls is what the host needs while any bed is up. Two kubelets and their containers run out of
// the default of 128 inotify instances.
var hostSysctls = map[string]string{
	"net/ipv4/ip_forward":           "1",
	"fs/inotify/max_user_instances": "8192",
	"fs/inotify/max_user_watches":   "1048576",
}

// Raise applies the host's sysctls and remembers what was there before the first bed came.
func (r *Record) Raise() error {
	if r.Sysctls == nil {
		r.Sysctls = map[string]string{}
	}
	for name, value := range hostSysctls {
		old, err := setSysctl(name, value)
		if err != nil {
			return err
		}
		if _, known := r.Sysctls[name]; !known {
			r.Sysctls[name] = old
		}
	}
	return nil
}

// Restore puts the host's sysctls back once no bed is left.
func (r *Record) Restore() {
	if len(r.Subnets) > 0 {
		return
	}
	for name, value := range r.Sysctls {
		_, _ = setSysctl(name, value)
	}
	r.Sysctls = nil
}

// RemoveTree deletes a directory and says so when something in it is still mounted.
func RemoveTree(path string) error {
	err := os.RemoveAll(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
