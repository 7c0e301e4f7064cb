package preflight

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// Site is what a site says of itself: the facts that it publishes
// (docs/formats/facts.md), or that were read from it live.
type Site struct {
	FormatVersion int       `json:"formatVersion"`
	Name          string    `json:"site"`
	Cluster       string    `json:"cluster,omitempty"`
	At            time.Time `json:"at"` // by the site's clock
	Davit         string    `json:"davit,omitempty"`
	Kubernetes    string    `json:"kubernetes,omitempty"`
	// Domain is the site's failure domain, and VaultDomain the vault's.
	Domain      string  `json:"domain,omitempty"`
	VaultDomain string  `json:"vaultDomain,omitempty"`
	KeyID       string  `json:"keyID,omitempty"` // the newest data key it knows
	Nodes       []Node  `json:"nodes"`
	Classes     []Class `json:"storageClasses"`
	// IngressClasses are those there are, and GatewayClasses; nil where nobody looked, or
	// where the kind is not served.
	IngressClasses []IngressClass `json:"ingressClasses"`
	GatewayClasses []string       `json:"gatewayClasses"`
	// Labelled says that Nodes have their labels: there were not too many.
	Labelled bool `json:"labelled,omitempty"`
	// APIs are the versions served of each resource.group.
	APIs map[string][]string `json:"apis"`
	// Images counts the nodes that have an image, by each of its names.
	Images map[string]int `json:"images,omitempty"`
	Quotas []Quota        `json:"quotas,omitempty"`
	Rights Rights         `json:"rights"`
	// RightsOf are those of the ServiceAccounts of Davit's namespace that plans name, by
	// their names.
	RightsOf map[string]Rights `json:"rightsOf,omitempty"`
	Secrets  []string          `json:"secrets,omitempty"` // in Davit's namespace
	// Reconcilers make objects from git, as RESOURCE.GROUP/NAMESPACE/NAME; Accounts are the
	// ServiceAccounts of Davit's namespace; Names the DNSEndpoints that have Davit's
	// guard, as NAMESPACE/NAME. Nil where nobody looked.
	Reconcilers []string `json:"reconcilers"`
	Accounts    []string `json:"accounts"`
	Names       []string `json:"names"`
	// Outside is what outside dependencies of plans answered, asked from here.
	Outside []Answer `json:"outside,omitempty"`
	// Peers is what the other sites of plans answered who were asked to stay passive, asked from here.
	Peers []Pledge `json:"peers,omitempty"`
	// ConfigMaps are those of Davit's namespace that are not Davit's own; nil where
	// nobody looked.
	ConfigMaps []string `json:"configMaps"`
	// Roles are the applications' roles here, by their names in the vault.
	Roles map[string]string `json:"roles,omitempty"`
	// Epochs are the newest epochs of them that the site heard of.
	Epochs map[string]int64 `json:"epochs,omitempty"`
	// Unread is what could not be read, and why.
	Unread map[string]string `json:"unread,omitempty"`
	// Written is when the vault took the facts, by its own clock; zero for those
	// that were read live. It is not stored.
	Written time.Time `json:"-"`
}

// Node is one that can take pods.
type Node struct {
	Name   string `json:"name"`
	Free   Room   `json:"free"`             // allocatable less what its pods asked for
	Closed string `json:"closed,omitempty"` // why it takes none: cordoned, tainted, not ready
	// Labels are its own; all nodes have them, or none (Site.Labelled).
	Labels map[string]string `json:"labels,omitempty"`
}

// IngressClass is a class of Ingresses.
type IngressClass struct {
	Name    string `json:"name"`
	Default bool   `json:"default,omitempty"`
}

// Answer is what something that no site runs answered to a plan's probe.
type Answer struct {
	Kind   string    `json:"kind"`
	Target string    `json:"target"`
	Expect string    `json:"expect,omitempty"`
	At     time.Time `json:"at"`
	Err    string    `json:"error,omitempty"` // why the probe is not passed
}

// Room is an amount of what pods take.
type Room struct {
	CPU    int64 `json:"cpu"`    // thousandths of a core
	Memory int64 `json:"memory"` // bytes
	Pods   int64 `json:"pods"`
}

// Class is a storage class.
type Class struct {
	Name        string `json:"name"`
	Provisioner string `json:"provisioner"`
	Default     bool   `json:"default,omitempty"`
	// Room is how much it can still give, where its driver says so; -1: it
	// does not.
	Room int64 `json:"room"`
}

// Quota is a ResourceQuota: CPU in thousandths, all else in units.
type Quota struct {
	Namespace string           `json:"namespace"`
	Name      string           `json:"name"`
	Hard      map[string]int64 `json:"hard"`
	Used      map[string]int64 `json:"used"`
}

// Impersonated is denied of an account that a site's agent may not act as.
const Impersonated = "be acted for by the agent"

// Rights are what whoever would restore may not do.
type Rights struct {
	Who string `json:"who,omitempty"`
	// Applications are those of which was asked; nil in facts of older agents.
	Applications []string `json:"applications,omitempty"`
	Asked        int      `json:"asked,omitempty"`
	Denied       []string `json:"denied,omitempty"`
	Err          string   `json:"error,omitempty"`
	// Steps tells of the rights that steps of plans take (Right.String) whether who has them.
	Steps map[string]bool `json:"steps,omitempty"`
}

// Encode writes facts as they are published.
func (s *Site) Encode() ([]byte, error) {
	c := *s
	c.FormatVersion = formatVersion
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode facts of site %s: %w", s.Name, err)
	}
	return data, nil
}

// Decode reads what Encode wrote. Numbers that cannot be are refused, so that
// no check adds them up.
func Decode(data []byte) (*Site, error) {
	var s Site
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	switch {
	case s.FormatVersion > formatVersion:
		return nil, fmt.Errorf("read facts: format %d, this davit reads %d: use a newer davit", s.FormatVersion, formatVersion)
	case s.FormatVersion != formatVersion || s.Name == "" || s.At.IsZero():
		return nil, errors.New("read facts: version, site or time is missing")
	}
	const most = 1 << 60
	for _, n := range s.Nodes {
		if max(n.Free.CPU, n.Free.Memory, n.Free.Pods) > most/1024 || min(n.Free.CPU, n.Free.Memory, n.Free.Pods) < -most/1024 {
			return nil, fmt.Errorf("read facts: node %q has room that cannot be", n.Name)
		}
	}
	for _, q := range s.Quotas {
		for _, of := range []map[string]int64{q.Hard, q.Used} {
			for what, n := range of {
				if n < 0 || n > most {
					return nil, fmt.Errorf("read facts: quota %s/%s has %d of %s", q.Namespace, q.Name, n, what)
				}
			}
		}
	}
	return &s, nil
}

// Says tells whether the site said that it runs an application, when the vault took
// its facts at a time that is not long ago, and well after a time at which
// another had claimed it: it could write to the vault, and should have read there
// that it may not run. What it said before then is what every site says that was lost.
func (s *Site) Says(application string, claimed, now time.Time) bool {
	return s.Roles[application] == "Active" && !s.Written.IsZero() && s.Written.Sub(claimed) > Heed && s.Age(now) <= Fresh
}

// Same tells whether two facts differ in nothing but their time.
func (s *Site) Same(as *Site) bool {
	if s == nil || as == nil {
		return false
	}
	a, b := *s, *as
	a.At, b.At = time.Time{}, time.Time{}
	x, errX := a.Encode()
	y, errY := b.Encode()
	return errX == nil && errY == nil && string(x) == string(y)
}

// Recalling are facts that were just read, with what only the site's own agent asks from
// what it published, if that is not old; nil: it published nothing.
func (s *Site) Recalling(published *Site, now time.Time) *Site {
	if published == nil || published.Age(now) > Fresh {
		return s
	}
	if s.RightsOf == nil {
		s.RightsOf = published.RightsOf
	}
	if s.Outside == nil {
		s.Outside = published.Outside
	}
	if s.Peers == nil {
		s.Peers = published.Peers
	}
	return s
}

// Age is how old the facts are.
func (s *Site) Age(now time.Time) time.Duration {
	at := s.At
	if !s.Written.IsZero() {
		at = s.Written
	}
	return max(0, now.Sub(at))
}

// open are the nodes that take pods.
func (s *Site) open() []Node {
	return slices.DeleteFunc(slices.Clone(s.Nodes), func(n Node) bool { return n.Closed != "" })
}

// closed says why nodes take none.
func (s *Site) closed() string {
	var all []string
	for _, n := range s.Nodes {
		if n.Closed != "" {
			all = append(all, n.Name+" ("+n.Closed+")")
		}
	}
	return some(all)
}

// has counts the nodes that have an image.
func (s *Site) has(i Image) int {
	most := 0
	for name, n := range s.Images {
		if i.Digest != "" && strings.HasSuffix(name, "@"+i.Digest) || i.Digest == "" && fullName(name) == fullName(i.Reference) {
			most = max(most, n)
		}
	}
	return most
}

// fullName is an image's name with nothing left out, for comparing.
func fullName(name string) string {
	host, rest, found := strings.Cut(name, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", name
		if !found {
			rest = "library/" + name
		}
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if last := rest[strings.LastIndexByte(rest, '/')+1:]; !strings.ContainsAny(last, ":@") {
		rest += ":latest"
	}
	return host + "/" + rest
}

// Need is what an application needs of a site, as its newest point says.
type Need struct {
	Application string
	// Why says why nothing is known: there is no point, or it cannot be read.
	Why         string
	Point       string
	Instant     time.Time
	Consistency string
	RPO         time.Duration // the objective of its policy
	Site        string        // where it was captured
	Namespaces  []string
	Pods        []Pods
	Volumes     []Volume
	Kinds       []Kind
	Images      []Image
	Doors       []Door
	// IngressClasses are those that the point brings along.
	IngressClasses []string
	Epochs         []Epoch // ascending
	// Moved are the sites that held it in the vault which this one took the place of, and
	// claimed nothing when they came over.
	Moved []string
}

// Pods are those of one workload.
type Pods struct {
	Namespace, Workload string
	Count               int64
	EveryNode           bool // as DaemonSets: Count is for each node
	Each, Limit         Room // what one asks for, and may take at most
	// Where are the nodes that it may be placed on, by their labels: one of these terms
	// must hold. Empty: all.
	Where []Term
}

// Door is what clients come in by: an Ingress, or a Gateway.
type Door struct {
	Gateway         bool
	Namespace, Name string
	Class           string // empty: the default one
	// Noted says that an annotation names the class, which controllers may serve without
	// there being an object of it.
	Noted bool
}

// Volume is a claim.
type Volume struct {
	Namespace, Claim, Class string
	Bytes                   int64
}

// Kind is a kind of objects.
type Kind struct {
	Resource string // resource.group
	Version  string
	Count    int64
	Defined  bool // the point brings its definition along
}

// Image is one that an application runs.
type Image struct{ Reference, Digest string }

// Key names an image in answers.
func (i Image) Key() string { return strings.TrimSuffix(i.Reference+"@"+i.Digest, "@") }

// Epoch is one claim of an application.
type Epoch struct {
	Number int64
	Site   string
	// Vouched says that a person said for good that the site has stopped.
	Vouched bool
	// Shared says that the claim is of sites which nothing can ask, and that a cluster
	// bears the name in it.
	Shared bool
}
