package plan

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Terraform is a configuration that a Job applies with Terraform or OpenTofu. One of
// ConfigMap, Secret, Directory and Module says where it is.
type Terraform struct {
	Image     string `json:"image"`
	Program   string `json:"program,omitempty"`   // terraform when empty
	ConfigMap string `json:"configMap,omitempty"` // of davit-system
	Secret    string `json:"secret,omitempty"`    // of davit-system
	Directory string `json:"directory,omitempty"` // of the image
	Module    string `json:"module,omitempty"`    // an address that init copies from

	Backend   map[string]string `json:"backend,omitempty"`
	Workspace string            `json:"workspace,omitempty"`
	Variables map[string]string `json:"variables,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Secrets   []string          `json:"secrets,omitempty"` // as environment
	// LockTimeout is how long a state that another holds is waited for; see Patience.
	LockTimeout time.Duration `json:"lockTimeout,omitempty"`
	// Destroy says that a roll-back destroys all that the state knows. Else it is kept.
	Destroy bool `json:"destroy,omitempty"`
}

// Runs is the program.
func (t *Terraform) Runs() string { return cmp.Or(t.Program, "terraform") }

// Patience is how long a lock is waited for.
func (t *Terraform) Patience() time.Duration { return cmp.Or(t.LockTimeout, time.Minute) }

// sources are the places where the configuration is.
func (t *Terraform) sources() []string {
	return slices.DeleteFunc([]string{t.ConfigMap, t.Secret, t.Directory, t.Module}, func(s string) bool { return s == "" })
}

// ByHand are the commands with which a person does what the step does, in a directory
// with the configuration and with its environment.
func (t *Terraform) ByHand() []string {
	where := map[bool]string{true: "# the configuration is in ConfigMap " + t.ConfigMap + " of davit-system", false: "# the configuration is in Secret " + t.Secret + " of davit-system"}[t.ConfigMap != ""]
	init := t.Runs() + " init -input=false"
	switch {
	case t.Directory != "":
		where = "# the configuration is in " + t.Directory + " of the image " + t.Image
	case t.Module != "":
		where, init = "# in an empty directory", init+" -from-module="+word(t.Module)
	}
	all := []string{where}
	for _, key := range slices.Sorted(maps.Keys(t.Backend)) {
		init += " " + word("-backend-config="+key+"="+t.Backend[key])
	}
	for _, key := range slices.Sorted(maps.Keys(t.Variables)) {
		all = append(all, "export "+word("TF_VAR_"+key+"="+t.Variables[key]))
	}
	all = append(all, init)
	if t.Workspace != "" {
		all = append(all, t.Runs()+" workspace select -or-create=true "+word(t.Workspace))
	}
	return append(all, t.Runs()+" apply -input=false")
}

// word makes a text one word of a shell.
func word(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ClusterAPI is what a management cluster of Cluster API is asked for: objects first,
// then machines, then conditions.
type ClusterAPI struct {
	// Kubeconfig is a Secret of davit-system; empty: the target is its own
	// management cluster.
	Kubeconfig string            `json:"kubeconfig,omitempty"`
	Apply      []json.RawMessage `json:"apply,omitempty"`
	Scale      []Machines        `json:"scale,omitempty"`
	Wait       []Conditions      `json:"wait,omitempty"`
	// Destroy says that a roll-back deletes the objects that the run made. Else they
	// are kept.
	Destroy bool `json:"destroy,omitempty"`
}

// Machines is how many of them there must be at least.
type Machines struct {
	Object   string `json:"object"` // see Machinery
	Replicas int64  `json:"replicas"`
}

// Conditions must be true. Empty: Ready, or Available where there is no Ready.
type Conditions struct {
	Object     string   `json:"object"` // see Machinery
	Conditions []string `json:"conditions,omitempty"`
}

// ClusterGroup is that of Cluster API. Its providers have groups under it.
const ClusterGroup = "cluster.x-k8s.io"

// IsClusterGroup tells whether an API group is Cluster API's or one of its providers'.
func IsClusterGroup(group string) bool {
	return group == ClusterGroup || strings.HasSuffix(group, "."+ClusterGroup)
}

var errMachinery = errors.New("write RESOURCE.GROUP/NAMESPACE/NAME of a group of Cluster API, such as machinedeployments." + ClusterGroup + "/fleet/workers")

// Machinery reads RESOURCE.GROUP/NAMESPACE/NAME, an object of Cluster API.
func Machinery(object string) (resource, namespace, name string, err error) {
	parts := strings.Split(object, "/")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return "", "", "", fmt.Errorf("%q does not say which object: %w", object, errMachinery)
	}
	plural, group, _ := strings.Cut(parts[0], ".")
	if plural == "" || !IsClusterGroup(group) {
		return "", "", "", fmt.Errorf("%q is nothing of Cluster API: %w", object, errMachinery)
	}
	return parts[0], parts[1], parts[2], nil
}

// Machinery are all objects of Cluster API that the step scales or waits for.
func (c *ClusterAPI) Machinery() []string {
	var all []string
	for _, m := range c.Scale {
		all = append(all, m.Object)
	}
	for _, w := range c.Wait {
		all = append(all, w.Object)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// infrastructure complains of what no infrastructure step can have.
func (c *checker) infrastructure(where string, s Step) {
	if s.Kind != KindInfra {
		if s.Terraform != nil || s.ClusterAPI != nil {
			c.say(where, "its terraform or clusterAPI is never used", "make it a step of the kind infrastructure, or remove them")
		}
		return
	}
	forms := 0
	for _, given := range []bool{s.Terraform != nil, s.ClusterAPI != nil, s.Command != nil} {
		if given {
			forms++
		}
	}
	if forms != 1 {
		c.say(where, fmt.Sprintf("it has %d of terraform, clusterAPI and command", forms), "give it one")
	}
	if s.Object != "" {
		c.say(where, "its object is never used", "remove it: terraform, clusterAPI or command says what is made")
	}
	if s.Command != nil && s.Command.Image == "" {
		c.say(where, "its command has no image", "give one")
	}
	c.terraform(where, s)
	c.clusterAPI(where, s.ClusterAPI)
}

func (c *checker) terraform(where string, s Step) {
	t := s.Terraform
	if t == nil {
		return
	}
	if t.Image == "" {
		c.say(where, "its terraform has no image", "give one that has the program and a shell")
	}
	if n := len(t.sources()); n != 1 {
		c.say(where, fmt.Sprintf("its configuration is in %d places", n), "say one of configMap, secret, directory and module")
	}
	if carriesPassword(t.Module) {
		c.say(where, "its module's address has a password, which terraform shows in errors", "write the address without it, and give git its credentials by a Secret: GIT_CONFIG_COUNT and what belongs to it, or an image that has a helper")
	}
	if t.LockTimeout < 0 {
		c.say(where, "its lockTimeout is negative", "say how long a state that another holds is waited for")
	}
	if s.Timeout > 0 && t.Patience() >= s.Timeout {
		c.say(where, fmt.Sprintf("it waits %s for a lock, and has %s in all", t.Patience(), s.Timeout), "give it a longer timeout, or a shorter lockTimeout")
	}
	for key := range t.Backend {
		if key == "" || strings.ContainsAny(key, "= \n") {
			c.say(where, fmt.Sprintf("its backend has a key %q", key), "write KEY: VALUE")
		}
	}
}

// carriesPassword tells whether the address of a module has one in it. What getter it
// is for stands before it: git::https://...
func carriesPassword(module string) bool {
	if _, address, is := strings.Cut(module, "::"); is {
		module = address
	}
	u, err := url.Parse(module)
	return err == nil && u.User != nil && passworded(u.User)
}

func (c *checker) clusterAPI(where string, a *ClusterAPI) {
	if a == nil {
		return
	}
	if len(a.Apply)+len(a.Scale)+len(a.Wait) == 0 {
		c.say(where, "its clusterAPI asks for nothing", "say apply, scale or wait")
	}
	for _, object := range a.Machinery() {
		if _, _, _, err := Machinery(object); err != nil {
			what, _, _ := strings.Cut(err.Error(), ": write ")
			c.say(where, what, errMachinery.Error())
		}
	}
	for _, m := range a.Scale {
		if m.Replicas < 1 {
			c.say(where, fmt.Sprintf("it scales %s to %d", m.Object, m.Replicas), "say one or more")
		}
	}
	for i, raw := range a.Apply {
		if _, err := ReadMachinery(raw); err != nil {
			c.say(where, fmt.Sprintf("object %d of its apply: %v", i+1, err), "write an object of Cluster API with apiVersion, kind and metadata, or apply it otherwise: a command can")
		}
	}
}

// Head is what says which object a document is.
type Head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
}

// String is how people are told of it.
func (h Head) String() string { return h.Kind + " " + h.Metadata.Namespace + "/" + h.Metadata.Name }

// ReadMachinery reads what an object to apply is.
func ReadMachinery(raw json.RawMessage) (Head, error) {
	var h Head
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, fmt.Errorf("read it: %w", err)
	}
	group, _, versioned := strings.Cut(h.APIVersion, "/")
	switch {
	case h.Kind == "" || h.Metadata.Name == "" || h.Metadata.Namespace == "":
		return h, errors.New("it has no kind, namespace or name")
	case !versioned || !IsClusterGroup(group):
		return h, fmt.Errorf("%s of %q is nothing of Cluster API", h.Kind, h.APIVersion)
	}
	return h, nil
}
