package preflight_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// promised is an input of a plan that wants promises, as all is well.
func promised() *preflight.Input {
	in := good()
	in.Plan.Fence = plan.Fence{Lease: 15 * time.Second, Bound: 10 * time.Second, Promises: true, Peers: map[string]string{"east": "e:1", "west": "w:1"}}
	west := preflight.Peer{Site: "west", Cluster: "w", Address: "w:1"}
	in.Promised = []preflight.Promised{
		{Application: "shop", Site: "east", Epoch: 2, Leased: true, Peers: []preflight.Peer{west}, Stated: true},
		{Application: "till", Site: "east", Epoch: 3, Leased: true, Peers: []preflight.Peer{west}, Stated: true},
	}
	in.Bearers = map[string]string{"east": "e", "west": "w"}
	at := now.Add(-3 * time.Minute)
	in.Sites["east"].Peers = []preflight.Pledge{{Application: "shop", Epoch: 2, Peer: west, At: at}, {Application: "till", Epoch: 3, Peer: west, At: at}}
	return in
}

// TestPromises: what would keep peers from standing in for the vault is told before it falls silent.
func TestPromises(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(in *preflight.Input)
		verdict preflight.Verdict
		site    string
		says    string
	}{
		"all is well":            {func(*preflight.Input) {}, preflight.OK, "east", "would give now"},
		"none are wanted":        {func(in *preflight.Input) { in.Plan.Fence.Promises, in.Promised = false, nil }, preflight.OK, "", "asks no site"},
		"nobody looked":          {func(in *preflight.Input) { in.Promised = nil }, preflight.Unknown, "", "nobody looked"},
		"no lease":               {func(in *preflight.Input) { in.Promised[0].Leased = false }, preflight.Warn, "east", "without a lease"},
		"the claim names nobody": {func(in *preflight.Input) { in.Promised[0].Peers = nil }, preflight.Warn, "east", "names no peers"},
		"it moved":               {func(in *preflight.Input) { in.Plan.Fence.Peers["west"] = "w:2" }, preflight.Warn, "east", "its claim names west at w:1, and the plan west at w:2 (of shop, till)"},
		"a third site came":      {func(in *preflight.Input) { in.Plan.Sites = append(in.Plan.Sites, plan.Site{Name: "north"}) }, preflight.Warn, "east", "the plan north at , west at w:1"},
		"nodes do not ask":       {func(in *preflight.Input) { in.Promised[1].Stated = false }, preflight.Warn, "east", "not all of its nodes"},
		"another cluster":        {func(in *preflight.Input) { in.Bearers["west"] = "x" }, preflight.Warn, "west", "another cluster bears the name"},
		"it refuses": {func(in *preflight.Input) {
			in.Sites["east"].Peers[1].Err = "it promises nothing: epoch 4 was claimed for this site"
		}, preflight.Warn, "west", "epoch 4 was claimed"},
		"nobody asked":            {func(in *preflight.Input) { in.Sites["east"].Peers = nil }, preflight.Unknown, "east", "nobody has asked site west"},
		"asked of an older epoch": {func(in *preflight.Input) { in.Promised[0].Epoch = 9 }, preflight.Unknown, "east", "nobody has asked site west"},
		"asked long ago":          {func(in *preflight.Input) { in.Sites["east"].Peers[0].At = now.Add(-time.Hour) }, preflight.Unknown, "east", "nobody has asked site west"},
		"lost with the vault":     {func(in *preflight.Input) { in.Sites["west"].Domain = "cloud" }, preflight.Warn, "west", "silent together with the vault"},
		"nothing of the holder":   {func(in *preflight.Input) { delete(in.Sites, "east") }, preflight.Unknown, "east", "nothing is known"},
	} {
		in := promised()
		c.change(in)
		var all []preflight.Finding
		for _, f := range preflight.Judge(in) {
			if f.Check == "promises" {
				all = append(all, f)
			}
		}
		found := slices.ContainsFunc(all, func(f preflight.Finding) bool {
			return f.Verdict == c.verdict && f.Site == c.site && strings.Contains(f.Reason, c.says) && (f.Remedy != "" || f.Verdict == preflight.OK)
		})
		if !found || len(all) != 1 {
			t.Errorf("%s: %+v", name, all)
		}
	}
}
