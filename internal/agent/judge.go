package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/kube/externaldns"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/traffic/providers"
	"davit.dev/davit/internal/traffic/rehearsal"
)

// registriesPatience bounds how long registries are asked for one plan, and
// registriesRemember how long their answers hold.
const (
	registriesPatience = 20 * time.Second
	registriesRemember = 9 * time.Minute
)

// mostFindings is how many findings the status of a plan holds.
const mostFindings = 200

// plansOf are the cluster's plans that are kept in a vault and name this site.
func (h *herald) plansOf(ctx context.Context, v *vaults.Opened) ([]*v1alpha1.RecoveryPlan, error) {
	var list v1alpha1.RecoveryPlanList
	if err := h.client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list plans: %w", err)
	}
	var all v1alpha1.VaultList
	if err := h.client.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list vaults: %w", err)
	}
	var of []*v1alpha1.RecoveryPlan
	for i := range list.Items {
		p := &list.Items[i]
		if kept, err := plans.Among(all.Items, p); err == nil && kept == v.Object.Name && names(p, h.pool.self.Site) {
			of = append(of, p)
		}
	}
	slices.SortFunc(of, func(a, b *v1alpha1.RecoveryPlan) int { return strings.Compare(a.Name, b.Name) })
	return of, nil
}

// revisions tells sets of plans apart, and what they say.
func revisions(plans []*v1alpha1.RecoveryPlan) string {
	var all []string
	for _, p := range plans {
		all = append(all, fmt.Sprintf("%s/%d", p.UID, p.Generation))
	}
	return strings.Join(all, " ")
}

// judge judges the plans of a vault, and writes into their status what was found.
func (h *herald) judge(ctx context.Context, v *vaults.Opened, own *preflight.Site, plans []*v1alpha1.RecoveryPlan) error {
	measure.KeepPlans(v.Object.Name, planNames(plans))
	if len(plans) == 0 {
		return nil
	}
	var apps []string
	for _, p := range plans {
		for _, a := range p.Spec.Applications {
			apps = append(apps, a.Name)
		}
	}
	slices.Sort(apps)
	known, err := foresight.Gather(ctx, h.looking(v, own), slices.Compact(apps))
	if err != nil {
		return fmt.Errorf("judge plans: %w", err)
	}
	for _, p := range plans {
		if err := h.judgeOne(ctx, v.Object.Name, known, p); err != nil {
			return err
		}
	}
	return nil
}

func names(p *v1alpha1.RecoveryPlan, site string) bool {
	return slices.ContainsFunc(p.Spec.Sites, func(s v1alpha1.PlanSite) bool { return s.Name == site })
}

func planNames(plans []*v1alpha1.RecoveryPlan) []string {
	var all []string
	for _, p := range plans {
		all = append(all, p.Name)
	}
	return all
}

// looking is how the agent looks ahead: it has this site's facts, and asks
// registries and name servers from here.
func (h *herald) looking(v *vaults.Opened, own *preflight.Site) foresight.Options {
	return foresight.Options{
		Project: v.Listing, Domain: v.Object.Spec.FailureDomain, Now: h.pool.now,
		Live: func(context.Context, []preflight.Need) map[string]*preflight.Site {
			return map[string]*preflight.Site{own.Name: own}
		},
		Registry: h.registry,
	}
}

// judgeOne judges one plan for a failover to this site; where this site holds
// the applications, to the first other one.
func (h *herald) judgeOne(ctx context.Context, vaultName string, known *foresight.Known, object *v1alpha1.RecoveryPlan) error {
	p := document.Convert(object)
	if len(p.Check()) > 0 {
		return nil // its own condition says so
	}
	here := *known
	to := h.pool.self.Site
	if known.Holds(p, to) {
		to = "" // the other's agent asks the name servers: it is the one that would move names
	} else {
		here.Names = func(ctx context.Context, p *plan.Plan) []preflight.Name {
			return rehearsal.Ask(ctx, p, providers.Open(h.secret, externaldns.Objects{Client: h.restorer.Dynamic}, h.pool.now))
		}
	}
	out := here.Judge(ctx, p, plan.Failover, to)
	if out.Input.To == h.pool.self.Site {
		h.fill(ctx, p, out.Input.Needs)
	}
	rows := here.Ready(ctx, []*plan.Plan{p}).Rows
	old := object.DeepCopy()
	status(&object.Status, out, rows, h.pool.now())
	if err := h.client.Status().Patch(ctx, object, client.MergeFrom(old)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("write status of plan %s: %w", object.Name, err))
	}
	gauges(vaultName, out, object.Status.Readiness)
	return nil
}

func (h *herald) secret(ctx context.Context, name string) (map[string][]byte, error) {
	var s corev1.Secret
	if err := h.reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}, &s); err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
	}
	return s.Data, nil
}

// status writes down what was found, the worst first.
func status(s *v1alpha1.RecoveryPlanStatus, out *foresight.Outlook, rows []readiness.Row, now time.Time) {
	s.Preflight = &v1alpha1.PlanPreflight{CheckedAt: metav1.NewTime(now)}
	for _, verdict := range []preflight.Verdict{preflight.Fail, preflight.Warn, preflight.Unknown} {
		for _, f := range out.Findings {
			if f.Verdict != verdict || len(s.Preflight.Findings) == mostFindings {
				continue
			}
			finding := v1alpha1.PlanFinding{Check: f.Check, Site: f.Site, Severity: "warning", Message: f.Reason, Remedy: f.Remedy}
			if f.Application != "" {
				finding.Message = f.Application + ": " + f.Reason
			}
			switch verdict {
			case preflight.Fail:
				finding.Severity = "error"
			case preflight.Unknown:
				finding.Message = "not known: " + finding.Message
			}
			s.Preflight.Findings = append(s.Preflight.Findings, finding)
		}
	}
	s.Readiness = readyStatus(out.Input.To, rows, now)
	rpo, known := worstRPO(out)
	if !out.RTO.Known && !known {
		s.Prediction = nil
		return
	}
	s.Prediction = &v1alpha1.PlanPrediction{ComputedAt: metav1.NewTime(now), Runs: int32(out.RTO.Runs)}
	if out.RTO.Known {
		s.Prediction.RTO = &metav1.Duration{Duration: out.RTO.Worst}
	}
	if known {
		s.Prediction.RPO = &metav1.Duration{Duration: rpo}
	}
}

// readyStatus is the least of the applications' levels to a site.
func readyStatus(to string, rows []readiness.Row, now time.Time) *v1alpha1.PlanReadiness {
	const most = 100
	var r *v1alpha1.PlanReadiness
	for _, row := range rows {
		if row.Site != to {
			continue
		}
		if r == nil {
			r = &v1alpha1.PlanReadiness{ComputedAt: metav1.NewTime(now), Level: int32(row.Level)}
		}
		r.Level, r.Stale = min(r.Level, int32(row.Level)), r.Stale || row.Verify != ""
		for _, missing := range row.Missing {
			if len(r.Missing) < most {
				r.Missing = append(r.Missing, row.Application+": "+missing)
			}
		}
	}
	return r
}

// worstRPO is that of the application that would lose most; known only if all are.
func worstRPO(out *foresight.Outlook) (time.Duration, bool) {
	worst := time.Duration(0)
	for _, r := range out.RPO {
		if !r.Known {
			return 0, false
		}
		worst = max(worst, r.Worst)
	}
	return worst, len(out.RPO) > 0
}

// gauges tells Prometheus.
func gauges(vaultName string, out *foresight.Outlook, ready *v1alpha1.PlanReadiness) {
	name, o := out.Input.Plan.Name, out.Input.Plan.Objectives
	count := preflight.Count(out.Findings)
	for _, v := range []preflight.Verdict{preflight.OK, preflight.Unknown, preflight.Warn, preflight.Fail} {
		measure.PlanFindings.WithLabelValues(vaultName, name, string(v)).Set(float64(count[v]))
	}
	measure.PlanChecked.WithLabelValues(vaultName, name).Set(float64(out.Input.Now.Unix()))
	if ready != nil {
		measure.PlanLevel.WithLabelValues(vaultName, name).Set(float64(ready.Level))
	}
	measure.Optional(measure.PlanRTOObjective, o.RTO > 0, o.RTO, vaultName, name)
	measure.Optional(measure.PlanRPOObjective, o.RPO > 0, o.RPO, vaultName, name)
	measure.Optional(measure.PlanRTO, out.RTO.Known, out.RTO.Worst, vaultName, name)
	rpo, known := worstRPO(out)
	measure.Optional(measure.PlanRPO, known, rpo, vaultName, name)
}
