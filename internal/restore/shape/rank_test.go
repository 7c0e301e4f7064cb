package shape

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestEveryRankHasAName(t *testing.T) {
	seen := map[string]bool{}
	for r := range RankCount {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("rank %d is called %q", r, name)
		} else {
			seen[name] = true
		}
	}
}

func TestMatchesKind(t *testing.T) {
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for pattern, want := range map[string]bool{
		"deployments.apps": true, "*.apps": true, "deployments": false, "*": true, "Deployments.apps": true, "[": false,
	} {
		if got := MatchesKind([]string{pattern}, deployments); got != want {
			t.Errorf("%q: %v", pattern, got)
		}
	}
}
