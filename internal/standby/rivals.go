package standby

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

var kindNodeFence = schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "NodeFence"}

// witness looks for what nobody may change anything upon: that two sites write an
// application (docs/decisions/0032-what-stops-a-run.md), or that the vault has
// forgotten epochs of it.
func (s *Site) witness(ctx context.Context, facts *failover.Facts, lost []string, histories map[string][]lease.Epoch) error {
	sites, bad, err := bulletin.Read(ctx, s.project())
	if err != nil {
		return err
	}
	facts.Unheard = unheard(bad)
	if facts.Split, err = s.split(ctx, sites, lost, histories); err != nil {
		return err
	}
	apps := slices.Sorted(maps.Keys(histories))
	heard, err := s.heard(ctx, apps, sites)
	if err != nil {
		return err
	}
	for _, app := range apps {
		newest, known := int64(len(histories[app])), heard[app]
		if known.number > newest {
			facts.Problems = append(facts.Problems, fmt.Sprintf(
				"%s: the vault's newest epoch is %d, and %s has heard of %d: epochs were deleted, or an older state of the vault was put back, and a run would claim a number that another site has. Bring the newer ones back, from the store's versions or a backup of the store; where neither has them, make a second copy, take this vault away from every site (revoke its credentials, or delete its bucket) and `vault promote` the copy at each: its epochs begin above all that the sites have heard of",
				app, newest, known.who, known.number))
		}
	}
	return nil
}

// unheard says of which sites nobody can read what they said of themselves. No run is
// refused for that, least of all one that takes over from such a site: people are told.
func unheard(bad map[string]string) string {
	var all []string
	for _, site := range slices.Sorted(maps.Keys(bad)) {
		all = append(all, fmt.Sprintf("what site %s said of itself cannot be read, so nobody knows whether it runs any of this, or which epochs it has heard of: %s", site, bad[site]))
	}
	return strings.Join(all, "; ")
}

// split says that another site runs an application than the one that claimed it
// last. Who claimed it last is of the vault. Another one is believed by what it
// published well after that claim, and not long ago: then it lives, and reads
// the vault. What a site published before it was lost says nothing, nor does a site
// of which somebody made sure that it has stopped.
func (s *Site) split(ctx context.Context, sites map[string]*preflight.Site, lost []string, histories map[string][]lease.Epoch) (string, error) {
	var all []string
	for _, app := range slices.Sorted(maps.Keys(histories)) {
		history := histories[app]
		if len(history) == 0 || slices.Contains(lost, history[len(history)-1].Claim.Site) {
			continue
		}
		newest := history[len(history)-1]
		for _, name := range slices.Sorted(maps.Keys(sites)) {
			if name == newest.Claim.Site || slices.Contains(lost, name) {
				continue
			}
			rival, err := s.rival(ctx, app, sites[name], newest.Number)
			if err != nil {
				return "", err
			}
			if rival {
				all = append(all, fmt.Sprintf("site %s holds %s by epoch %d, and site %s, which has heard of epoch %d, published at %s that it runs it",
					newest.Claim.Site, app, newest.Number, name, sites[name].Epochs[app], sites[name].Written.UTC().Format(time.RFC3339)))
			}
		}
	}
	return strings.Join(all, "; "), nil
}

// rival tells whether a site that does not hold an application runs it all the same.
func (s *Site) rival(ctx context.Context, app string, site *preflight.Site, newest int64) (bool, error) {
	now := s.o.Recovery.Now()
	if !site.Says(app, time.Time{}, now) {
		return false, nil
	}
	claimed, err := lease.Written(ctx, s.project(), app, newest)
	if err != nil || !site.Says(app, claimed, now) || site.Name != s.o.Recovery.Site {
		return err == nil && site.Says(app, claimed, now), err
	}
	// It may have read of it since: its cluster knows more than what it published.
	live, err := s.liveHere(ctx, app)
	return live != nil && shape.Text(live.Object, "status", "role") == string(v1alpha1.RoleActive), err
}

// word is the highest epoch that somebody heard of.
type word struct {
	number int64
	who    string
}

// heard are the highest epochs of the applications that are known besides the vault:
// to the sites, whenever they published, and to this cluster's Applications and nodes.
// A number that was ever heard of was claimed.
func (s *Site) heard(ctx context.Context, apps []string, sites map[string]*preflight.Site) (map[string]word, error) {
	all := map[string]word{}
	hear := func(app string, number int64, who string) {
		if number > all[app].number {
			all[app] = word{number, who}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		for app, n := range sites[name].Epochs {
			hear(app, n, "site "+name)
		}
	}
	here := map[string]bool{}
	for _, app := range apps {
		live, err := s.liveHere(ctx, app)
		if err != nil && !apierrors.IsForbidden(err) { // who may not look here still hears what sites say
			return nil, err
		}
		if live != nil {
			n, _, _ := unstructured.NestedInt64(live.Object, "status", "epoch")
			hear(app, n, "this site, "+s.o.Recovery.Site+",")
			here[app] = true
		}
	}
	if len(here) == 0 { // what nodes know may be of another vault
		return all, nil
	}
	return all, s.nodes(ctx, func(node, app string, n int64) {
		if here[app] {
			hear(app, n, "node "+node+" of this site, "+s.o.Recovery.Site+",")
		}
	})
}

// liveHere is the Application of this cluster that is kept in this vault; nil if
// there is none.
func (s *Site) liveHere(ctx context.Context, app string) (*unstructured.Unstructured, error) {
	if s.o.Recovery.Cluster == nil {
		return nil, nil
	}
	live, err := s.applicationHere(ctx, app)
	if errors.Is(err, errNoApplication) || errors.Is(err, restore.ErrNotServed) {
		return nil, nil
	}
	return live, err
}

// nodes says which epochs the nodes here enforce; none where the cluster keeps no
// such record, or nobody may see it.
func (s *Site) nodes(ctx context.Context, hear func(node, app string, n int64)) error {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindNodeFence)
	if err == nil {
		err = s.o.Recovery.Cluster.List(ctx, at, "", "", func(u *unstructured.Unstructured) error {
			fenced, _, _ := unstructured.NestedSlice(u.Object, "status", "applications")
			leased, _, _ := unstructured.NestedSlice(u.Object, "status", "leases")
			for _, x := range append(fenced, leased...) {
				if of, is := x.(map[string]any); is {
					n, _, _ := unstructured.NestedInt64(of, "epoch")
					hear(u.GetName(), shape.Text(of, "application"), n)
				}
			}
			return nil
		})
	}
	if errors.Is(err, restore.ErrNotServed) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at what nodes fence: %w", err)
	}
	return nil
}
