package bed

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MemberStatus is what 'bed status' shows of a site or the vault.
type MemberStatus struct {
	Name       string   `json:"name"`
	Address    string   `json:"address"`
	LinkUp     bool     `json:"linkUp"`
	Ready      bool     `json:"ready"` // all daemons run, and the node of a site is Ready
	Running    []string `json:"running"`
	Stopped    []string `json:"stopped,omitempty"`
	Processes  int      `json:"processes"`
	Kubeconfig string   `json:"kubeconfig,omitempty"`
	Problem    string   `json:"problem,omitempty"`
}

// Status looks at every member. A dead member costs a deadline, not an error.
func (b *Bed) Status(ctx context.Context) []MemberStatus {
	var list []MemberStatus
	for _, n := range b.nodes() {
		list = append(list, b.memberStatus(ctx, n))
	}
	return list
}

func (b *Bed) memberStatus(ctx context.Context, n *node) MemberStatus {
	st := MemberStatus{Name: n.name, Address: n.net.Address(), LinkUp: n.linkIsUp(), Processes: len(n.pids())}
	files, _ := filepath.Glob(n.pidFile("*"))
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".pid")
		if n.running(name) {
			st.Running = append(st.Running, name)
		} else {
			st.Stopped = append(st.Stopped, name)
		}
	}
	slices.Sort(st.Running)
	st.Ready = st.LinkUp && len(st.Stopped) == 0 && len(st.Running) > 0
	s := b.Site(n.name)
	if w := b.worker(n.name); w != nil {
		s = w.site
	}
	if s == nil {
		return st
	}
	st.Kubeconfig = s.Kubeconfig()
	if !st.Ready {
		return st
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := s.nodeReady(ctx, n.name, time.Time{}); err != nil {
		st.Ready, st.Problem = false, err.Error()
	}
	return st
}

// startedAt is when a component was started, as far as its pid file tells.
func (n *node) startedAt(name string) time.Time {
	st, err := os.Stat(n.pidFile(name))
	if err != nil {
		return time.Time{}
	}
	// Kubernetes keeps whole seconds.
	return st.ModTime().Truncate(time.Second)
}

// Environment is what a test or a shell needs to use the instance.
type Environment struct {
	Instance string            `json:"instance"`
	State    string            `json:"state"`
	Cache    string            `json:"cache"`
	Kubectl  string            `json:"kubectl"`
	S3       S3Info            `json:"s3"`
	Sites    []SiteEnvironment `json:"sites"`
}

// SiteEnvironment is how one site is reached.
type SiteEnvironment struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Kubeconfig  string `json:"kubeconfig"`
	Registry    string `json:"registry"`
	KubeletRoot string `json:"kubeletRoot"`
	Containerd  string `json:"containerd"`
	Netns       string `json:"netns"`
	PodCIDR     string `json:"podCIDR"`
}

// Environment collects all addresses, paths and credentials of the instance.
func (b *Bed) Environment(cache, kubectl string) Environment {
	env := Environment{Instance: b.instance, State: b.dir, Cache: cache, Kubectl: kubectl, S3: b.S3()}
	for _, s := range b.Sites() {
		env.Sites = append(env.Sites, SiteEnvironment{
			Name: s.name, Address: s.Address(), Kubeconfig: s.Kubeconfig(), Registry: s.Registry(),
			KubeletRoot: s.KubeletRoot(), Containerd: s.ContainerdSocket(), Netns: s.Netns(), PodCIDR: s.net.PodCIDR(),
		})
	}
	return env
}

// Shell renders the environment as assignments for a POSIX shell.
func (e Environment) Shell() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	var b strings.Builder
	set := func(name, value string) { b.WriteString("export " + name + "=" + quote(value) + "\n") }
	set("BED_INSTANCE", e.Instance)
	set("BED_STATE", e.State)
	set("DAVIT_CACHE", e.Cache)
	set("KUBECTL", e.Kubectl)
	set("S3_ENDPOINT", e.S3.Endpoint)
	set("S3_TLS_ENDPOINT", e.S3.TLSEndpoint)
	set("S3_CA_FILE", e.S3.CAFile)
	set("AWS_ACCESS_KEY_ID", e.S3.AccessKey)
	set("AWS_SECRET_ACCESS_KEY", e.S3.SecretKey)
	set("AWS_REGION", e.S3.Region)
	for _, s := range e.Sites {
		up := strings.ToUpper(s.Name)
		set("KUBECONFIG_"+up, s.Kubeconfig)
		set("ADDRESS_"+up, s.Address)
		set("REGISTRY_"+up, s.Registry)
	}
	return b.String()
}

// JSON renders the environment for programs.
func (e Environment) JSON() ([]byte, error) { return json.MarshalIndent(e, "", "  ") }
