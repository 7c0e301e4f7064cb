package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/occupant"
	"davit.dev/davit/internal/restore/policy"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// checks are all preflight checks, in the order of the report. Each looks at
// one thing and says what is wrong with it, and what to do.
var checks = []struct {
	name string
	run  func(*Engine, context.Context) ([]Finding, error)
}{
	{"mapping", (*Engine).checkMapping},
	{"policies", (*Engine).checkPolicies},
	{"transforms", (*Engine).checkTransforms},
	{"scope", (*Engine).checkScope},
	{"consistency", (*Engine).checkConsistency},
	{"kinds", (*Engine).checkKinds},
	{"rights", (*Engine).checkRights},
	{"namespaces", (*Engine).checkNamespaces},
	{"lease", (*Engine).checkLease},
	{"storage-classes", (*Engine).checkClasses},
	{"claims", (*Engine).checkClaims},
	{"refusals", (*Engine).checkRefusals},
	{"gitops", (*Engine).checkGit},
	{"order", (*Engine).checkOrder},
	{"nodes", (*Engine).checkNodes},
	{"vault-data", (*Engine).checkData},
}

// Preflight asks everything that can be known before anything changes, and
// changes nothing. An error says that a question got no answer; what is wrong
// is in the findings.
func (e *Engine) Preflight(ctx context.Context) ([]Finding, error) {
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	results := make([][]Finding, len(checks))
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range checks {
		g.Go(func() error {
			found, err := c.run(e, ctx)
			if err != nil {
				return fmt.Errorf("check %s: %w", c.name, err)
			}
			for j := range found {
				found[j].Check = c.name
			}
			results[i] = found
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(results...), nil
}

func wrong(reason, remedy, format string, args ...any) Finding {
	return Finding{Severity: report.Error, Reason: reason, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}

func beware(reason, remedy, format string, args ...any) Finding {
	return Finding{Severity: report.Warning, Reason: reason, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}

// checkMapping looks for mappings that cannot be meant.
func (e *Engine) checkMapping(context.Context) ([]Finding, error) {
	return obstacle.Mappings(e.m.Namespaces, e.names, e.opts.StorageClassMapping, e.x.Captured), nil
}

// checkPolicies looks for policies of kinds that the point does not have.
func (e *Engine) checkPolicies(context.Context) ([]Finding, error) {
	var found []Finding
	for _, pattern := range slices.Sorted(maps.Keys(e.opts.ExistingKinds)) {
		if !slices.ContainsFunc(e.m.Resources, func(res point.Resource) bool { return policy.Matches(pattern, res) }) {
			found = append(found, beware("UnusedPolicy", "write resource.group, such as deployments.apps, or the kind's name",
				"the recovery point has no kind %s, for which there is a policy", pattern))
		}
	}
	return found, nil
}

// checkConsistency refuses data that was read while being written, unless that
// is accepted.
func (e *Engine) checkConsistency(context.Context) ([]Finding, error) {
	if e.m.Consistency != point.Fuzzy || e.opts.SkipVolumes {
		return nil, nil
	}
	if e.opts.AcceptFuzzy {
		return []Finding{beware("Fuzzy", "", "volumes of this point were read while being written: the application has to repair them")}, nil
	}
	return []Finding{wrong("Fuzzy", "choose another point, or accept it with --accept-fuzzy (acceptFuzzy)",
		"volumes of this point were read while being written, so they may contradict themselves")}, nil
}

// needed are the kinds that objects will be created of, by resource.
func (e *Engine) needed() []int {
	var all []int
	for i, entries := range e.x.Entries {
		if slices.ContainsFunc(entries, func(en *index.Entry) bool { return en.Skip == "" }) {
			all = append(all, i)
		}
	}
	return all
}

// checkKinds looks whether the target serves every kind in a version that the
// objects can be written in, now or once the point's own CRDs are there.
func (e *Engine) checkKinds(ctx context.Context) ([]Finding, error) {
	var found []Finding
	for _, i := range e.needed() {
		res, kind := e.m.Resources[i], e.x.Kinds[i]
		_, err := e.resolve(ctx, i)
		var version *served.VersionError
		switch {
		case errors.Is(err, ErrNotServed) && slices.Contains(e.x.Defined[kind], res.Version):
		case errors.Is(err, ErrNotServed):
			found = append(found, wrong("MissingKind", "install its CRD at the target, or leave it out with --exclude-kinds "+gvrName(res),
				"the target does not serve %s, and the recovery point does not hold its definition (%d objects)", kind, res.Count))
		case errors.Is(err, ErrUnanswered):
			found = append(found, wrong("UnknownKind", "see kubectl get apiservices at the target and mend what does not answer, or leave it out with --exclude-kinds "+gvrName(res),
				"%v (%d objects)", err, res.Count))
		case errors.As(err, &version):
			found = append(found, wrong("MissingVersion", "install a version of it that serves "+res.Version+", or leave it out with --exclude-kinds "+gvrName(res),
				"%v", version))
		case err != nil:
			return nil, err
		}
	}
	return found, nil
}

func gvrName(res point.Resource) string {
	if res.Group == "" {
		return res.Resource
	}
	return res.Resource + "." + res.Group
}

// question is one right that the restore needs.
type question struct {
	verb, namespace string
	at              Served
}

// checkRights asks for every right that the restore will use: first
// everywhere, and where that is denied in each namespace.
func (e *Engine) checkRights(ctx context.Context) ([]Finding, error) {
	var mu sync.Mutex
	var found []Finding
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, i := range e.needed() {
		at, err := e.resolve(ctx, i)
		if err != nil {
			continue // checkKinds says so
		}
		for _, verb := range e.verbs(i) {
			g.Go(func() error {
				denied, err := e.denied(ctx, question{verb, "", at}, e.namespacesOf(i))
				mu.Lock()
				defer mu.Unlock()
				found = append(found, denied...)
				return err
			})
		}
	}
	err := g.Wait()
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return found, err
}

// checkLease asks whether the restore may keep others of the application away.
func (e *Engine) checkLease(ctx context.Context) ([]Finding, error) {
	if e.opts.Isolation != nil { // its lease is in a namespace of its own
		return nil, nil
	}
	denied, err := hold.Denied(ctx, e.leases, e.opts.LeaseNamespace)
	if err != nil || denied == "" {
		return nil, err
	}
	return []Finding{wrong("Denied", "grant get, create and update of leases there, or create a Restore in the application's namespace: the agent then takes the lease itself",
		"no right to %s: it keeps two restores of one application apart", denied)}, nil
}

// verbs are what the restore does with a kind.
func (e *Engine) verbs(i int) []string {
	verbs := []string{"create", "get", "patch"}
	policy, _ := e.policyOf(e.m.Resources[i])
	if policy == Exact {
		verbs = append(verbs, "update")
	}
	if policy.RollsBack() && e.x.Kinds[i] != shape.KindClaim {
		verbs = append(verbs, "delete")
	}
	if policy == Exact || slices.Contains(reason.WaitedFor, e.x.Kinds[i]) {
		verbs = append(verbs, "list")
	}
	return verbs
}

func (e *Engine) namespacesOf(i int) []string {
	seen := map[string]bool{}
	for _, en := range e.x.Entries[i] {
		if ns, _ := e.target(en); en.Skip == "" && ns != "" {
			seen[ns] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (e *Engine) denied(ctx context.Context, q question, namespaces []string) ([]Finding, error) {
	ok, reason, err := e.cluster.May(ctx, q.verb, q.at, "")
	if err != nil || ok {
		return nil, err
	}
	if !q.at.Namespaced {
		return []Finding{deniedFinding(q, reason)}, nil
	}
	var found []Finding
	for _, q.namespace = range namespaces {
		ok, reason, err := e.cluster.May(ctx, q.verb, q.at, q.namespace)
		if err != nil {
			return nil, err
		}
		if !ok {
			found = append(found, deniedFinding(q, reason))
		}
	}
	return found, nil
}

func deniedFinding(q question, reason string) Finding {
	where := "cluster-wide"
	if q.namespace != "" {
		where = "in namespace " + q.namespace
	}
	if reason != "" {
		reason = " (" + reason + ")"
	}
	return wrong("Denied", "grant it to the account that restores, or leave the kind out with --exclude-kinds",
		"no right to %s %s %s%s", q.verb, q.at.GVR.GroupResource(), where, reason)
}

// checkNamespaces looks into namespaces that exist already.
func (e *Engine) checkNamespaces(ctx context.Context) ([]Finding, error) {
	at, err := e.served(ctx, shape.KindNamespace)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, name := range e.targetNamespaces() {
		live, err := e.cluster.Get(ctx, at, "", name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if live.GetDeletionTimestamp() != nil || shape.Text(live.Object, "status", "phase") == "Terminating" {
			why, remedy := shape.Terminating(live.Object)
			found = append(found, wrong("Terminating", remedy, "namespace %s is being deleted%s", name, why))
			continue
		}
		if e.opts.NewNamespaces && live.GetLabels()[shape.LabelRestore] != e.opts.ID {
			found = append(found, wrong("NamespaceTaken", "choose another name for it", "namespace %s is there already, and this copy goes into new ones only", name))
			continue
		}
		others, err := obstacle.Finder{Cluster: e.cluster}.Others(ctx, name, e.opts.ID)
		if err != nil {
			return nil, err
		}
		if len(others) > 0 {
			found = append(found, beware("NamespaceInUse",
				"objects of the same name are "+e.whatHappens()+"; to keep them apart, map the namespace to a new one",
				"namespace %s exists and holds what this restore did not make: %s", name, shape.Names(others, 5)))
		}
	}
	return found, nil
}

func (e *Engine) whatHappens() string {
	what := map[Existing]string{
		Skip: "left as they are", Update: "changed to what was captured", Replace: "deleted and made anew where they differ",
		Exact: "overwritten where they differ, and what the point does not have is deleted",
	}[e.opts.Existing]
	if len(e.opts.ExistingKinds) > 0 {
		what += ", but for the kinds that have a policy of their own"
	}
	return what + " (existing: " + string(e.opts.Existing) + ")"
}

// checkClasses looks whether every storage class that claims name is there.
func (e *Engine) checkClasses(ctx context.Context) ([]Finding, error) {
	finder := obstacle.Finder{Cluster: e.cluster}
	stored := e.x.Stored[shape.KindClass]
	if e.opts.Isolation != nil {
		stored = nil // a copy brings no class along
	}
	return finder.Classes(ctx, e.x.Classes, stored)
}

// checkClaims looks for claims whose data would be lost, and for workloads
// that would run on claims while they are being filled.
func (e *Engine) checkClaims(ctx context.Context) ([]Finding, error) {
	at, err := e.served(ctx, shape.KindClaim)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for i, entries := range e.x.Entries {
		if e.x.Kinds[i] != shape.KindClaim {
			continue
		}
		for _, en := range entries {
			vol := e.volumeOf(en)
			if en.Skip != "" || vol == nil {
				continue
			}
			f, err := e.checkClaim(ctx, at, en, *vol)
			if err != nil {
				return nil, err
			}
			found = append(found, f...)
		}
	}
	return found, nil
}

func (e *Engine) checkClaim(ctx context.Context, at Served, en *index.Entry, vol point.Volume) ([]Finding, error) {
	namespace, name := e.target(en)
	live, err := e.cluster.Get(ctx, at, namespace, name)
	if answer.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err == nil {
		switch action, why := e.claimVerdict(en, live, vol); action {
		case report.Conflict:
			return []Finding{wrong("ClaimExists", "", "%s: %s", objectName(at, namespace, name), why)}, nil
		case report.Create:
		default: // left alone, whole, or rolled back
			return nil, nil
		}
	}
	if policy, _ := e.policyOf(e.m.Resources[en.Res]); policy.RollsBack() {
		return nil, nil // what uses it is stopped
	}
	err = occupant.None(ctx, e.cluster, namespace, name)
	if err != nil && answer.Status(err) == 0 && !answer.Transient(err) {
		return []Finding{wrong("ClaimInUse", "", "claim %s/%s: %v", namespace, name, err)}, nil
	}
	return nil, err
}

// checkNodes asks whether volumes can be filled at all.
func (e *Engine) checkNodes(ctx context.Context) ([]Finding, error) {
	if len(e.m.Volumes) == 0 || e.opts.SkipVolumes || !slices.ContainsFunc(e.needed(), func(i int) bool { return e.x.Kinds[i] == shape.KindClaim }) {
		return nil, nil
	}
	if e.volumes == nil {
		return []Finding{wrong("NoNodeProcess", "run davit install at the target",
			"the point has %d volumes, and nothing at the target can fill them", len(e.m.Volumes))}, nil
	}
	if err := e.volumes.Ready(ctx); err != nil {
		return []Finding{wrong("NoNodeProcess", "", "the point has %d volumes, and the target cannot fill them now: %v", len(e.m.Volumes), err)}, nil
	}
	return nil, nil
}

// checkData asks whether everything the point names is in the vault.
func (e *Engine) checkData(ctx context.Context) ([]Finding, error) {
	const remedy = "choose another point; davit verify says what is damaged"
	var found []Finding
	if err := e.source.CheckObjects(ctx, e.m); err != nil {
		found = append(found, wrong("MissingData", remedy, "the recovery point is not whole in the vault: %v", err))
	}
	if e.opts.SkipVolumes {
		return found, nil
	}
	for _, v := range e.m.Volumes {
		if err := e.source.CheckVolume(ctx, v); err != nil {
			found = append(found, wrong("MissingData", remedy, "the data of claim %s/%s is not whole in the vault: %v", v.Namespace, v.Claim, err))
		}
	}
	return found, nil
}
