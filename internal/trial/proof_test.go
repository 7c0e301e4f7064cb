package trial

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

// TestOnlyWhatRanIsProof: without probes, a copy proves something only if one
// of its workloads got ready, and none was left out.
func TestOnlyWhatRanIsProof(t *testing.T) {
	atRest := strings.Replace(db, `"replicas":1`, `"replicas":0`, 1)
	onTheNode := strings.NewReplacer(`"name":"db"`, `"name":"files"`, `"containers":[]`,
		`"containers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","hostPath":{"path":"/srv"}}]`).Replace(db)
	ofOperator := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pg-0","ownerReferences":[{"apiVersion":"pg.example.com/v1","kind":"Cluster","name":"pg","uid":"x","controller":true}]},` +
		`"spec":{"containers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","hostPath":{"path":"/srv"}}]}}`
	for name, test := range map[string]struct {
		objects []string
		probe   bool
		passes  bool
		why     string
	}{
		"a workload runs":                   {[]string{conf, db}, false, true, ""},
		"nothing is there":                  {[]string{conf}, false, false, "nothing that was waited for runs"},
		"all is at rest":                    {[]string{conf, atRest}, false, false, "nothing that was waited for runs"},
		"one runs, one is at rest":          {[]string{db, strings.Replace(atRest, `"name":"db"`, `"name":"old"`, 1)}, false, true, ""},
		"all is left out":                   {[]string{onTheNode}, false, false, "without Deployment.apps shop/files: its volume v (hostPath)"},
		"one is left out":                   {[]string{db, onTheNode}, false, false, "without Deployment.apps shop/files: its volume v (hostPath)"},
		"an operator's pod is left out":     {[]string{db, ofOperator}, false, false, "without Pod shop/pg-0"},
		"what is left out was at rest":      {[]string{db, strings.Replace(onTheNode, `"replicas":1`, `"replicas":0`, 1)}, false, true, ""},
		"one is left out, a probe answers":  {[]string{onTheNode}, true, true, ""},
		"nothing is there, a probe answers": {[]string{conf}, true, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publish(test.objects...)
			w.start()
			if test.probe {
				w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("1")}
			}
			report, err := Run(t.Context(), w.opts, w.deps)
			if report.Passed != test.passes || errors.Is(err, ErrNothingProven) == test.passes || errors.Is(err, ErrFailed) || !strings.Contains(report.Unproven, test.why) || w.left() != 0 {
				t.Fatalf("%v %+v", err, report)
			}
			marks := w.marks()
			if test.passes && (len(marks) != 1 || marks[0].How != vault.HowBoot) || !test.passes && (len(marks) != 0 || report.RTO != 0) {
				t.Errorf("marks %+v, report %+v", marks, report)
			}
		})
	}
}

// TestWhatLacksAPartIsNotUnbootable: a workload that waits for one that was
// left out says nothing about the point.
func TestWhatLacksAPartIsNotUnbootable(t *testing.T) {
	w := newWorld(t)
	w.publish(db, strings.NewReplacer(`"name":"db"`, `"name":"files"`, `"containers":[]`,
		`"containers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","hostPath":{"path":"/srv"}}]`).Replace(db))
	report, err := Run(t.Context(), w.opts, w.deps) // nothing gets ready in this cluster
	if !errors.Is(err, ErrNothingProven) || !strings.Contains(report.Unproven, "/db: ") || !strings.Contains(report.Unproven, "shop/files") || len(w.marks()) != 0 {
		t.Errorf("%v %+v, marks %v", err, report, w.marks())
	}
}

// TestSilenceOfTheVaultIsNoVerdict: not while a volume is filled, not while
// objects are read, and not although other things failed or were late.
func TestSilenceOfTheVaultIsNoVerdict(t *testing.T) {
	failed := func(errs ...error) recovery.Report {
		var r recovery.Report
		for _, err := range errs {
			r.Result.Failed++
			r.Result.Failures = append(r.Result.Failures, restore.Problem{Object: "claim", Message: err.Error(), NoAnswer: errors.Is(err, restore.ErrNoAnswer)})
		}
		return r
	}
	late, over := context.WithCancelCause(t.Context())
	over(fmt.Errorf("%w: 1m", errTimeOver))
	silent := fmt.Errorf("fill claim: %w", restore.ErrNoAnswer)
	damaged := errors.New("fill claim: damaged")
	for name, test := range map[string]struct {
		late   bool
		report recovery.Report
		err    error
		silent bool
	}{
		"while a volume was filled":             {false, failed(silent), nil, true},
		"and what needs the volume failed, too": {false, failed(damaged, silent), nil, true},
		"and then the time was over":            {true, failed(silent), context.DeadlineExceeded, true},
		"while objects were read":               {true, failed(), fmt.Errorf("restore: %w", vault.ErrUnavailable), true},
		"damage is a failure":                   {false, failed(damaged), nil, false},
		"so is the time":                        {true, failed(), context.DeadlineExceeded, false},
	} {
		bounded := t.Context()
		if test.late {
			bounded = late
		}
		failure, err := judge(bounded, t.Context(), test.report, test.err)
		if errors.Is(err, ErrNoAnswer) != test.silent || (failure != "") == test.silent {
			t.Errorf("%s: failure %q, %v", name, failure, err)
		}
	}
}
