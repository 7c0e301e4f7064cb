package view

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/keeping"
)

// TestCopiesSayWhenTheyWereProven in points, in status and in a description.
func TestCopiesSayWhenTheyWereProven(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	at := metav1.NewTime(now.Add(-2 * time.Hour))
	proof := func(vault string, damaged bool) v1alpha1.CopyProof {
		return v1alpha1.CopyProof{Vault: vault, Verification: v1alpha1.Verification{At: at, How: "full", Damaged: damaged}}
	}
	p := Point{Copies: []string{"far", "near", "new"}, CopyProofs: []v1alpha1.CopyProof{proof("near", true), proof("far", false), proof("gone", false)}}
	if got := copiesText(p, now); got != "far (2h full), near (DAMAGED), new" || p.Copies[0] != "far" {
		t.Errorf("points: %q", got)
	}
	v := &v1alpha1.VerificationStatus{Copies: []v1alpha1.CopyVerification{
		{Vault: "near", At: &at, How: "full", Points: []string{"p1"}, Damaged: []string{"p1"}},
		{Vault: "far", At: &at, How: "full", Points: []string{"p1"}, Repaired: []string{"p1"}},
		{Vault: "new", TriedAt: &at, Error: "no answer"},
	}}
	if got := copiesProven(v.Copies, now); got != "near (DAMAGED), far (2h full), new (never)" {
		t.Errorf("status: %q", got)
	}
	texts := keeping.Copies(v, now)
	for i, want := range []string{"repaired from the first vault: [p1]", "DAMAGED: [p1]", "new: tried without a verdict 2h ago: no answer"} {
		if !strings.Contains(texts[i], want) {
			t.Errorf("description: %q, want %q", texts[i], want)
		}
	}
	if !slices.IsSorted(texts) || keeping.Copies(nil, now) != nil {
		t.Errorf("description: %q", texts)
	}
}
