// Package measure holds the agent's Prometheus metrics. The alert rules in
// config/alerts.yaml are written against them.
package measure

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What the agent measures. application is the name in the vault.
var (
	NewestPointAge   = gauge("davit_newest_point_age_seconds", "Age of the newest recovery point that may be offered.", "application")
	RPOObjective     = gauge("davit_rpo_objective_seconds", "RPO objective of the application's policy.", "application")
	Points           = gauge("davit_points", "Recovery points that may be offered.", "application")
	BlocksDistrusted = gauge("davit_blocks_distrusted", "Volumes whose storage was found to call blocks unchanged that were not: points may hold old data.", "application")
	PointsDamaged    = gauge("davit_points_damaged", "Recovery points that verification found damaged.", "application")
	Role             = gauge("davit_application_role", "1 for the application's role at this site.", "application", "role")
	Epoch            = gauge("davit_application_epoch", "Newest epoch of the application seen in the vault.", "application")
	FenceLevel       = gauge("davit_fence_level", "1 for the level of the fence of an application that is superseded at this site: proven or asked.", "application", "level")
	VaultUp          = gauge("davit_vault_up", "1 if the last check of the vault passed.", "vault")
	VaultLatency     = gauge("davit_vault_latency_seconds", "Round trip of a small write to the vault.", "vault")
	VaultSkew        = gauge("davit_vault_clock_skew_seconds", "Clock of the vault minus this site's.", "vault")
	LockedUntil      = gauge("davit_vault_locked_until_seconds", "Until when all kept recovery points are locked, in Unix time.", "vault")
	VaultDestroyable = gauge("davit_vault_destroyable", "1 if it was not proven the last time that this site's credentials can destroy nothing in a vault with noOverwrite.", "vault")
	LocksFailing     = gauge("davit_vault_locks_failing", "1 if the locks of kept recovery points could not be prolonged the last time.", "vault")
	CopyLag          = gauge("davit_copy_lag_seconds", "Age of the oldest recovery point that a second copy should have and has not; 0: it has all.", "vault", "application")
	CopyPending      = gauge("davit_copy_pending_points", "Recovery points that are to be copied into a second copy yet.", "vault", "application")
	CopyFailing      = gauge("davit_copy_failing", "1 if the last pass into a second copy did not end well.", "vault")

	Captures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_captures_total", Help: "Captures ended, by result: succeeded, failed, superseded or interrupted.",
	}, []string{"application", "result"})
	Skipped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_captures_skipped_total", Help: "Slots of the schedule left out because the previous capture was still running.",
	}, []string{"application"})
	CaptureDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "davit_capture_duration_seconds", Help: "Duration of captures that succeeded.",
		Buckets: prometheus.ExponentialBuckets(0.5, 2, 15),
	}, []string{"application"})
	FreezeDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "davit_freeze_seconds", Help: "How long an application's file systems stood still for a recovery point.",
		Buckets: prometheus.ExponentialBuckets(0.05, 2, 11),
	}, []string{"application"})
	FreezesBroken = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_freezes_broken_total", Help: "Recovery points whose volumes were not cut at one instant although that was tried.",
	}, []string{"application"})
	HoldDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "davit_hold_seconds", Help: "How long hooks held an application at rest for a recovery point.",
		Buckets: prometheus.ExponentialBuckets(0.05, 2, 14),
	}, []string{"application"})
	HoldsLost = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_holds_lost_total", Help: "Recovery points that are not application-consistent although hooks were to hold the application at rest.",
	}, []string{"application"})
	HooksOwed = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "davit_hooks_owed", Help: "Hooks that captures which died owe applications, and that could not be run yet.",
	})
	VerifyOverdue = gauge("davit_verification_overdue", "1 if the verification that the policy asks for is more than an hour late.", "application")
	BlobsDamaged  = gauge("davit_blobs_damaged", "Blobs of volume data that verification on schedule found damaged and that no second copy could mend.", "application")
	Proven        = gauge("davit_proven_timestamp_seconds", "When the schedule last read recovery points back, in Unix seconds.", "application")
	Verifications = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_verifications_total", Help: "Verifications on schedule, by how (full, sample) and result: succeeded, damaged or failed.",
	}, []string{"application", "how", "result"})
	TestOverdue  = gauge("davit_restore_test_overdue", "1 if the restore test that the policy asks for is more than an hour late.", "application")
	TestFailed   = gauge("davit_restore_test_failed", "1 if the last restore test on schedule failed.", "application")
	TestUnproven = gauge("davit_restore_test_unproven", "1 if the last restore test on schedule could show nothing.", "application")
	Tested       = gauge("davit_restore_test_timestamp_seconds", "When the schedule last brought a recovery point up, in Unix seconds.", "application")
	TestedRTO    = gauge("davit_restore_test_rto_seconds", "How long the last restored copy took until it worked.", "application")
	RestoreTests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_restore_tests_total", Help: "Restore tests on schedule, by result: passed, failed, nothing-proven or no-verdict.",
	}, []string{"application", "result"})
	CopyProven  = gauge("davit_copy_proven_timestamp_seconds", "When the schedule last read an application's recovery points back from a second copy, in Unix seconds.", "application", "vault")
	CopyDamaged = gauge("davit_copy_damaged", "Recovery points and blobs of volume data that verification on schedule found damaged in a second copy and that the first vault could not mend.", "application", "vault")
	CopyUnread  = gauge("davit_copy_unread", "1 if the last verification of an application in a second copy gave no verdict.", "application", "vault")
	CopyRepairs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_copy_repairs_total", Help: "Damaged recovery points in a second copy that were to be mended from the first vault, by result: succeeded or failed.",
	}, []string{"application", "vault", "result"})
	Repairs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_repairs_total", Help: "Damaged recovery points that were to be mended from a second copy, by result: succeeded or failed.",
	}, []string{"application", "result"})
	VolumesUnprotected = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "davit_volumes_unprotected", Help: "Bound claims outside the cluster's own namespaces whose data no application captures.",
	})
	VolumesShared = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "davit_volumes_shared", Help: "Claims whose data several applications capture.",
	})
	Restores = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_restores_total", Help: "Restores carried out by the agent, by result.",
	}, []string{"result"})
)

// What the agent foresees of the cluster's plans.
var (
	FactsPublished   = gauge("davit_facts_published_timestamp_seconds", "When this site last published what it says of itself, in Unix seconds.", "vault")
	PlanFindings     = gauge("davit_plan_findings", "What the last look at the sites of a plan found, by verdict: ok, unknown, warn or fail.", "vault", "plan", "verdict")
	PlanChecked      = gauge("davit_plan_checked_timestamp_seconds", "When the sites of a plan were last looked at, in Unix seconds.", "vault", "plan")
	PlanLevel        = gauge("davit_plan_readiness_level", "Level of readiness of a plan, 0 to 3; -1: not even the first.", "vault", "plan")
	PlanRTO          = gauge("davit_plan_predicted_rto_seconds", "How long a failover would take at worst, by earlier runs or restore tests; absent without any.", "vault", "plan")
	PlanRPO          = gauge("davit_plan_predicted_rpo_seconds", "How much work a disaster would cost at worst, by the newest recovery points; absent without any.", "vault", "plan")
	PlanRTOObjective = gauge("davit_plan_rto_objective_seconds", "RTO objective of a plan.", "vault", "plan")
	PlanDrilled      = gauge("davit_plan_drill_timestamp_seconds", "When the newest drill of a plan at this site ended, in Unix seconds; only of plans that drill on a schedule.", "vault", "plan")
	PlanDrillPassed  = gauge("davit_plan_drill_passed", "1 if that drill passed, 0 if it failed, was canceled or refused.", "vault", "plan")
	PlanDrillDue     = gauge("davit_plan_drill_due_timestamp_seconds", "When the next drill of a plan at this site is due, in Unix seconds; in the past while it is under way or waits.", "vault", "plan")
	PlanRPOObjective = gauge("davit_plan_rpo_objective_seconds", "RPO objective of a plan.", "vault", "plan")
	PlanDeclares     = gauge("davit_plan_declares", "1 if this site would take over by itself when the plan's source is lost, 0 if something is missing for that.", "vault", "plan")
	PlanLostVotes    = gauge("davit_plan_lost_votes", "Vantage points that say that the plan's source is lost.", "vault", "plan")
	PlanDeclared     = gauge("davit_plan_declared_timestamp_seconds", "When this site last declared the plan's source lost by itself, in Unix seconds.", "vault", "plan")
)

var ofPlans = []*prometheus.GaugeVec{PlanFindings, PlanChecked, PlanLevel, PlanRTO, PlanRPO, PlanRTOObjective, PlanRPOObjective, PlanDeclares, PlanLostVotes, PlanDeclared, PlanDrilled, PlanDrillPassed, PlanDrillDue}

// DrillGrace is how late a drill on a schedule may be before it is overdue.
const DrillGrace = time.Hour

// ForgetDrills removes what is said of a plan's drills.
func ForgetDrills(plan string) {
	for _, g := range []*prometheus.GaugeVec{PlanDrilled, PlanDrillPassed, PlanDrillDue} {
		g.DeletePartialMatch(prometheus.Labels{"plan": plan})
	}
}

// plans are those of which there are gauges, by vault.
var plans = struct {
	sync.Mutex
	of map[string][]string
}{of: map[string][]string{}}

// KeepPlans removes the gauges of a vault's plans that are no more.
func KeepPlans(vault string, names []string) {
	plans.Lock()
	defer plans.Unlock()
	for _, name := range plans.of[vault] {
		if slices.Contains(names, name) {
			continue
		}
		for _, g := range ofPlans {
			g.DeletePartialMatch(prometheus.Labels{"vault": vault, "plan": name})
		}
	}
	plans.of[vault] = slices.Clone(names)
}

// Optional sets a gauge to a time if that is known, and else removes it.
func Optional(g *prometheus.GaugeVec, known bool, d time.Duration, labels ...string) {
	if !known {
		g.DeleteLabelValues(labels...)
		return
	}
	g.WithLabelValues(labels...).Set(d.Seconds())
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

// Register adds all of them to a registry.
func Register(r prometheus.Registerer) {
	r.MustRegister(NewestPointAge, RPOObjective, Points, PointsDamaged, BlocksDistrusted, Role, Epoch, FenceLevel, VaultUp, VaultLatency, VaultSkew, LockedUntil, LocksFailing, VaultDestroyable,
		Captures, Skipped, CaptureDuration, FreezeDuration, FreezesBroken, HoldDuration, HoldsLost, HooksOwed, Proven, BlobsDamaged, Verifications, VerifyOverdue, Restores,
		TestOverdue, TestFailed, TestUnproven, Tested, TestedRTO, RestoreTests, VolumesUnprotected, VolumesShared, CopyLag, CopyPending, CopyFailing, CopyProven, CopyDamaged, CopyUnread, CopyRepairs, Repairs, FactsPublished)
	for _, g := range ofPlans {
		r.MustRegister(g)
	}
}

// ForgetLocks removes the gauges of a vault that locks nothing, or is gone.
func ForgetLocks(name string) {
	LockedUntil.DeleteLabelValues(name)
	LocksFailing.DeleteLabelValues(name)
}

// ForgetCopy removes the gauges of a second copy that is gone.
func ForgetCopy(name string) {
	for _, g := range []*prometheus.GaugeVec{CopyLag, CopyPending, CopyFailing, CopyProven, CopyDamaged, CopyUnread} {
		g.DeletePartialMatch(prometheus.Labels{"vault": name})
	}
}

// ForgetCopyProofs removes what is said of an application's verification in
// second copies.
func ForgetCopyProofs(app string) {
	for _, g := range []*prometheus.GaugeVec{CopyProven, CopyDamaged, CopyUnread} {
		g.DeletePartialMatch(prometheus.Labels{"application": app})
	}
}

// ForgetApplication removes the gauges of an application that is gone.
func ForgetApplication(name string) {
	labels := prometheus.Labels{"application": name}
	for _, g := range []*prometheus.GaugeVec{NewestPointAge, RPOObjective, Points, PointsDamaged, BlocksDistrusted, Role, Epoch, FenceLevel, Proven, BlobsDamaged, VerifyOverdue, TestOverdue, TestFailed, TestUnproven, Tested, TestedRTO, CopyProven, CopyDamaged, CopyUnread} {
		g.DeletePartialMatch(labels)
	}
}
