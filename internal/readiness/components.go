package readiness

import (
	"fmt"
	"strings"
	"time"
)

// Component is something of a cluster that recovery depends on.
type Component struct {
	Name    string    `json:"name"`
	Covered bool      `json:"covered"`
	By      string    `json:"by"` // what covers it; or what to do as long as nothing does
	Proven  time.Time `json:"proven,omitzero"`
}

// Cluster is what is known of what a site's recovery depends on.
type Cluster struct {
	Points, Volumes int       // protected applications with a point, and volumes in their newest
	ReadBack        time.Time // the oldest proof among the applications; zero: one has none
	Images, Missing int       // what the points run, and what of it cannot be had elsewhere
	Asked           time.Time // when that was looked at
	Standby         []string  // other sites that stand by
	Seen            time.Time // the newest sign of one
	Names, Gates    int       // what plans move
	Moved           time.Time // when a run last moved a name
}

// Components says of each part of a cluster what covers it, and when that was
// proven. Nothing is called covered that Davit does not bring back.
func Components(c Cluster) []Component {
	open := func(name, do string) Component { return Component{Name: name, By: "nothing: " + do} }
	all := []Component{
		open("etcd", "snapshot it yourself; applications come back into any other cluster"),
		open("state file", "keep the state of the tool that made the cluster outside of it"),
		open("cluster config", "keep flags and manifests of the control plane in git"),
		open("certificates", "keep the cluster's PKI safe yourself; TLS Secrets of applications are in their recovery points"),
	}
	volumes := Component{Name: "volumes", Covered: c.Volumes > 0, By: fmt.Sprintf("recovery points: %d volumes of %d applications", c.Volumes, c.Points), Proven: c.ReadBack}
	if !volumes.Covered {
		volumes.By, volumes.Proven = "nothing: no recovery point holds a volume", time.Time{}
	}
	images := Component{Name: "images", Covered: c.Images > 0 && c.Missing == 0, By: fmt.Sprintf("registries or the target's nodes: all %d", c.Images), Proven: c.Asked}
	if !images.Covered {
		images.By, images.Proven = fmt.Sprintf("not all: %d of %d can be had nowhere that is known; davit images mirror", c.Missing, c.Images), time.Time{}
	}
	if c.Images == 0 {
		images.By = "nothing: no recovery point names any"
	}
	nodes := Component{Name: "nodes", Covered: len(c.Standby) > 0, By: "those of site " + strings.Join(c.Standby, ", "), Proven: c.Seen}
	if !nodes.Covered {
		nodes.By = "nothing: no other site stands by"
	}
	balancers := open("load balancers", "Services come back from recovery points, their balancers are the target's to make")
	if c.Gates > 0 {
		balancers.By = fmt.Sprintf("nothing: plans open %d gates for balancers that ask /active (docs/traffic.md), the balancers themselves are not protected", c.Gates)
	}
	manifests := Component{Name: "manifests", Covered: c.Points > 0, By: fmt.Sprintf("recovery points of %d applications", c.Points), Proven: c.ReadBack}
	if !manifests.Covered {
		manifests.By, manifests.Proven = "nothing: there is no recovery point", time.Time{}
	}
	names := Component{Name: "DNS", Covered: c.Names > 0, By: fmt.Sprintf("plans move %d names", c.Names), Proven: c.Moved}
	if !names.Covered {
		names.By, names.Proven = "nothing: no plan moves a name", time.Time{}
	}
	return append(all, volumes, images, nodes, balancers, manifests, names)
}
