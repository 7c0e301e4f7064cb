package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Peer is a site that is asked to stay passive while the vault is silent, as a claim names it.
type Peer struct {
	Site    string `json:"site"`
	Cluster string `json:"cluster"`
	Address string `json:"address"`
}

// Pledge is what a peer answered, asked from the site that holds an application.
type Pledge struct {
	Application string `json:"application"`
	Epoch       int64  `json:"epoch"`
	Peer
	At  time.Time `json:"at"`
	Err string    `json:"error,omitempty"` // why it promises nothing
}

// Promised is whose promises an application may run on by.
type Promised struct {
	Application string
	Site        string // that holds it; empty: none does
	Epoch       int64
	Leased      bool   // under a lease
	Peers       []Peer // whom the claim names; none: the vault alone renews the lease
	Stated      bool   // its nodes have said in the vault that they ask these
}

// Answer is what a peer last answered, as the holder's facts have it; nil: it was not asked for
// this epoch, as far as is known.
func (p Promised) Answer(holder *Site, peer Peer) *Pledge {
	if holder == nil {
		return nil
	}
	i := slices.IndexFunc(holder.Peers, func(a Pledge) bool {
		return a.Application == p.Application && a.Epoch == p.Epoch && a.Peer == peer
	})
	if i < 0 {
		return nil
	}
	return &holder.Peers[i]
}

// checkPromises looks, of a plan that wants promises, whether each application's claim names the peers that
// there are, whether its nodes ask them, and what they answer now. Nothing else would show before the
// vault falls silent, and the application is stopped all the same.
func checkPromises(in *Input) []Finding {
	switch {
	case !in.Plan.Fence.Promises:
		return []Finding{ok("", "the plan asks no site for promises")}
	case in.Promised == nil:
		return []Finding{unknown("", "davit vault check", "nobody looked whom the claims of its applications name")}
	}
	var all []Finding
	for _, s := range in.Plan.Sites {
		if site := in.Sites[s.Name]; site != nil && s.Name != in.From && in.Vault.Domain != "" && site.Domain == in.Vault.Domain {
			all = append(all, warn(s.Name, "keep the vault elsewhere, or expect applications to stop when both are lost", "it is in the vault's failure domain, %s: it falls silent together with the vault, and then promises nothing", site.Domain))
		}
	}
	for _, p := range in.Promised {
		for _, f := range slices.Concat(in.named(p), in.answered(p)) {
			all = append(all, f.of(p.Application))
		}
	}
	if all = fold(all); len(all) > 0 {
		return all
	}
	return []Finding{ok(in.From, "each application there may run on by the others' promises, which they would give now")}
}

// named judges whom the claim names.
func (in *Input) named(p Promised) (all []Finding) {
	arm := "davit plan arm " + in.Plan.Name + " there"
	switch {
	case p.Epoch == 0: // the check of epochs says so
		return nil
	case !p.Leased:
		return []Finding{warn(p.Site, arm, "it is held without a lease: its nodes ask nobody, and silence of the vault stops nothing")}
	}
	var claimed, wanted []string
	for _, peer := range p.Peers {
		claimed = append(claimed, peer.Site+" at "+peer.Address)
	}
	for _, s := range in.Plan.Sites {
		if s.Name != p.Site {
			wanted = append(wanted, s.Name+" at "+in.Plan.Fence.Peers[s.Name])
		}
	}
	slices.Sort(claimed)
	slices.Sort(wanted)
	switch {
	case len(claimed) == 0:
		all = append(all, warn(p.Site, arm, "its claim names no peers: silence of the vault stops it when its lease is over"))
	case !slices.Equal(claimed, wanted):
		all = append(all, warn(p.Site, arm, "its claim names %s, and the plan %s", strings.Join(claimed, ", "), strings.Join(wanted, ", ")))
	case !p.Stated:
		all = append(all, warn(p.Site, "`davit status` there names the node and why", "not all of its nodes have said that they keep its lease and may ask: until then the vault alone renews it"))
	}
	for _, peer := range p.Peers {
		if bearer := in.Bearers[peer.Site]; bearer != "" && bearer != peer.Cluster {
			all = append(all, warn(peer.Site, "davit plan arm "+in.Plan.Name+" at site "+p.Site,
				"another cluster bears the name than the claim at site %s names: what it promises does not count, and a failover to it asks a person", p.Site))
		}
	}
	return all
}

// answered judges what peers answered the holder.
func (in *Input) answered(p Promised) (all []Finding) {
	if len(p.Peers) == 0 {
		return nil
	}
	holder := in.Sites[p.Site]
	if holder == nil {
		return in.unknownSite(p.Site)
	}
	for _, peer := range p.Peers {
		switch a := p.Answer(holder, peer); {
		case a == nil, in.Now.Sub(a.At) > Fresh:
			all = append(all, unknown(p.Site, "run an agent of this version there: it asks every ten minutes", "nobody has asked site %s for a promise of late", peer.Site))
		case a.Err != "":
			all = append(all, warn(peer.Site, "see to it that the nodes of site "+p.Site+" reach "+peer.Address+", and `davit install --peer-port` at site "+peer.Site+"; else do what its answer says",
				"asked from site %s, it promises nothing: %s", p.Site, a.Err))
		}
	}
	return all
}

// fold joins findings that differ in their application alone.
func fold(all []Finding) []Finding {
	var out []Finding
	apps := map[Finding][]string{}
	for _, f := range all {
		app := f.Application
		f.Application = ""
		if apps[f] == nil {
			out = append(out, f)
		}
		apps[f] = append(apps[f], app)
	}
	for i, f := range out {
		if of := apps[f]; len(of) == 1 {
			out[i].Application = of[0]
		} else {
			out[i].Reason = fmt.Sprintf("%s (of %s)", f.Reason, some(of))
		}
	}
	return out
}
