package target

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"

	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/restore"
)

func document(t *testing.T, text string) map[string]any {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestHoldersKeepApartAsTheirPodsDo: a holder decides where a volume on a node's
// own disks is, and so where its pod can run.
func TestHoldersKeepApartAsTheirPodsDo(t *testing.T) {
	own := `"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"`
	other := `"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"`
	for name, tt := range map[string]struct {
		spec  string
		marks bool
		want  func(s mover.Scheduling) bool
	}{
		"spread over nodes": {
			`{"topologySpreadConstraints": [{"maxSkew": 1, "minDomains": 3, "matchLabelKeys": ["pod-template-hash"], "whenUnsatisfiable": "DoNotSchedule", ` + own + `}]}`, true,
			func(s mover.Scheduling) bool {
				c := s.TopologySpreadConstraints[0]
				return c.WhenUnsatisfiable == corev1.ScheduleAnyway && c.MinDomains == nil && c.MatchLabelKeys == nil && c.LabelSelector.MatchLabels[labelBeside] != ""
			},
		},
		"each on its own node": {
			`{"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{` + own + `}, {` + other + `}]}}}`, true,
			func(s mover.Scheduling) bool {
				a := s.Affinity.PodAntiAffinity
				kept, wished := a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution
				return len(kept) == 1 && kept[0].LabelSelector.MatchLabels["app"] == "web" && len(wished) == 1 && wished[0].PodAffinityTerm.LabelSelector.MatchLabels[labelBeside] != ""
			},
		},
		"all on one node": {
			`{"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": {` + own + `}}]}}}`, true,
			func(s mover.Scheduling) bool {
				wished := s.Affinity.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
				return len(wished) == 1 && wished[0].Weight == 7 && wished[0].PodAffinityTerm.LabelSelector.MatchLabels[labelBeside] != ""
			},
		},
		"away from others": {
			`{"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{` + other + `}]}}}`, false,
			func(s mover.Scheduling) bool {
				return len(s.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) == 1
			},
		},
		"of another namespace": {
			`{"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["far"], ` + own + `}]}}}`, false,
			func(s mover.Scheduling) bool {
				return len(s.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) == 1
			},
		},
		"no wishes": {`{"nodeSelector": {"disk": "ssd"}}`, false, func(s mover.Scheduling) bool { return s.NodeSelector["disk"] == "ssd" }},
	} {
		t.Run(name, func(t *testing.T) {
			req := restore.FillRequest{Namespace: "shop", Owner: "r1", PodSpec: document(t, tt.spec), PodLabels: map[string]any{"app": "db"}}
			s, err := schedulingOf(req)
			if err != nil || (s.Labels[labelBeside] != "") != tt.marks || s.Labels["app"] != "" || !tt.want(s) {
				t.Errorf("got %+v: %v", s, err)
			}
			beside, _ := schedulingOf(req)
			req.Owner = "r2"
			another, _ := schedulingOf(req)
			if tt.marks && (beside.Labels[labelBeside] != s.Labels[labelBeside] || another.Labels[labelBeside] == s.Labels[labelBeside]) {
				t.Errorf("marks are %v, %v, and of another restore %v", s.Labels, beside.Labels, another.Labels)
			}
		})
	}
}

// TestHoldersStayUntilAllArePlaced: one that went earlier would be missing from
// what the last keeps away from.
func TestHoldersStayUntilAllArePlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gatherings{all: map[string]*gathering{}}
		placed, stay, leave := g.enter("db")
		_, _, never := g.enter("db") // its holder is never placed
		late, _, gone := g.enter("db")
		_, alone, other := g.enter("web")
		stayed := false
		go func() {
			placed()
			stay(t.Context())
			stayed = true
		}()
		never()
		synctest.Wait()
		if stayed {
			t.Error("a holder went before the last was placed")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		alone(ctx) // whose restore is called off
		late()
		synctest.Wait()
		if !stayed {
			t.Error("a holder stays although all are placed")
		}
		leave()
		gone()
		other()
		if len(g.all) > 0 {
			t.Errorf("workloads are left: %v", g.all)
		}
	})
}
