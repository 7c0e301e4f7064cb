package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/keeping"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// PointDetail is one recovery point in full.
type PointDetail struct {
	View     Point
	Manifest *point.Manifest // nil when it is not in the vault
	Marks    []vault.Mark
	Now      time.Time
}

// Document is the manifest with what was learned later.
func (d PointDetail) Document() any {
	return struct {
		Point
		Manifest *point.Manifest `json:"manifest,omitempty"`
		Marks    []vault.Mark    `json:"marks,omitempty"`
	}{d.View, d.Manifest, d.Marks}
}

// Text is the point in sections.
func (d PointDetail) Text(t *output.Text) {
	v := d.View
	t.Line("Recovery point %s", v.ID)
	t.Fields("  ", "application", v.Application, "phase", string(v.Phase), "why", v.Message,
		"instant", agedTime(v.Instant, d.Now), "consistency", consistencyText(v.Consistency),
		"site", v.Site, "epoch", positive(v.Epoch), "verified", cmp.Or(strings.TrimSuffix(agedTime(v.Verified, d.Now)+" ("+v.VerifiedHow+")", " ()"), "never"),
		"pinned", map[bool]string{true: "yes: never expires"}[v.Pinned], "copies", strings.Join(v.Copies, ", "),
		"restore test", testText(v.Test, d.Now),
		"size", fmt.Sprintf("%s, %s, %s; added %s to the vault", output.Plural(v.Objects, "object"), output.Plural(v.Volumes, "volume"), output.Bytes(v.Bytes), output.Bytes(v.StoredBytes)))
	if m := d.Manifest; m != nil {
		t.Fields("  ", "namespaces", strings.Join(m.Namespaces, ", "), "captured by", fmt.Sprintf("davit %s, Kubernetes %s, %s, in %s", m.DavitVersion, m.KubeVersion, m.Trigger, output.Duration(m.FinishedAt.Sub(m.StartedAt))),
			"cut within", output.Duration(m.CutBy.Sub(m.Instant)), "cut by", cutText(m), "held still", freezeText(m.Freeze), "at rest", restText(m))
		manifestText(t, m)
	}
}

// testText is what the newest restore test of a point found.
func testText(test *Test, now time.Time) string {
	switch {
	case test == nil:
		return ""
	case test.Passed:
		return fmt.Sprintf("passed %s, worked after %s", agedTime(test.At, now), output.Duration(test.RTO))
	}
	return fmt.Sprintf("FAILED %s: %s", agedTime(test.At, now), test.Message)
}

func manifestText(t *output.Text, m *point.Manifest) {
	kinds := slices.Clone(m.Resources)
	slices.SortFunc(kinds, func(a, b point.Resource) int { return cmp.Compare(a.Resource+"."+a.Group, b.Resource+"."+b.Group) })
	var rows [][]string
	for _, r := range kinds {
		note := ""
		if r.Dependency {
			note = "came along, in no namespace"
		}
		rows = append(rows, []string{r.Kind, cmp.Or(r.Group, "core") + "/" + r.Version, fmt.Sprint(r.Count), note})
	}
	t.Section("Objects")
	t.Table("  ", output.Columns("KIND", "VERSION", ">COUNT", "NOTE"), rows)
	if len(m.Volumes) > 0 {
		t.Section("Volumes")
		t.Table("  ", output.Columns("CLAIM", "CLASS", "METHOD", "CONSISTENCY", ">CAPACITY", ">DATA", ">FILES", ">ADDED"), volumeRows(m))
	}
	asked := slices.DeleteFunc(slices.Clone(m.Volumes), func(v point.Volume) bool { return v.Snapshot.Blocks == nil })
	listText(t, "Changed blocks", len(asked), func(i int) string { return blocksText(asked[i]) })
	listText(t, "Images", len(m.Images), func(i int) string {
		return strings.TrimSpace(m.Images[i].Reference + " " + m.Images[i].Digest)
	})
	listText(t, "Hooks", len(m.Hooks), func(i int) string {
		h := m.Hooks[i]
		if h.When == "hold" {
			return fmt.Sprintf("%s held %s: %s for %s", h.Name, h.Pod, cmp.Or(h.Error, "proven"), output.Duration(h.Duration))
		}
		return fmt.Sprintf("%s %s in %s: %s in %s", h.Name, h.When, h.Pod, cmp.Or(h.Error, "ok"), output.Duration(h.Duration))
	})
	listText(t, fmt.Sprintf("Warnings (%d)", len(m.Warnings)), len(m.Warnings), func(i int) string {
		return strings.TrimPrefix(m.Warnings[i].Object+": "+m.Warnings[i].Message, ": ")
	})
}

// blocksText says how much of a volume's changed files was not read, by its storage's word.
func blocksText(v point.Volume) string {
	b := v.Snapshot.Blocks
	text := fmt.Sprintf("%s/%s: %s of changed files not read", v.Namespace, v.Claim, output.Bytes(b.Unread))
	if b.Reason != "" {
		text = fmt.Sprintf("%s/%s: all changed files were read: %s", v.Namespace, v.Claim, b.Reason)
	}
	if b.Distrusted != "" {
		text += ": " + b.Distrusted
	}
	return text
}

// freezeText says how the file systems were held still, and why not.
func freezeText(f *point.Freeze) string {
	if f == nil {
		return ""
	}
	took := ""
	if f.Frozen > 0 {
		took = fmt.Sprintf("for %s of %s at most, on %s", output.Duration(f.Frozen), output.Duration(f.Window), output.Plural(int64(f.Nodes), "node"))
	}
	switch {
	case f.Held && took == "":
		return "nothing was in use"
	case f.Held:
		return "all volumes, " + took
	case took == "":
		return "no: " + f.Reason
	}
	return fmt.Sprintf("tried %s, but: %s", took, f.Reason)
}

// cutText says by which acts of the storage the volumes were pinned. Where they
// are on several nodes' own disks, each node's are a group.
func cutText(m *point.Manifest) string {
	ways := map[string]map[string]int64{} // volumes, by method and driver
	for _, v := range m.Volumes {
		if ways[v.Method] == nil {
			ways[v.Method] = map[string]int64{}
		}
		ways[v.Method][v.Driver]++
	}
	group := "one group snapshot"
	if m.Freeze != nil && m.Freeze.Nodes > 1 {
		group = "group snapshots"
	}
	var parts []string
	for _, driver := range slices.Sorted(maps.Keys(ways["csi-group-snapshot"])) {
		parts = append(parts, fmt.Sprintf("%s of %s of driver %s", group, output.Plural(ways["csi-group-snapshot"][driver], "volume"), driver))
	}
	var single int64
	for _, volumes := range ways["csi-snapshot"] {
		single += volumes
	}
	if single > 0 {
		parts = append(parts, output.Plural(single, "snapshot"))
	}
	return strings.Join(parts, " and ")
}

// restText says whether hooks held the application at rest, and why not.
func restText(m *point.Manifest) string {
	q := m.Quiesce
	switch {
	case q == nil:
		return ""
	case !q.Held:
		return "not proven: " + q.Reason
	case m.Consistency != point.Application:
		return fmt.Sprintf("%s for %s, but the volumes were not cut at one instant meanwhile", output.Plural(int64(q.Pods), "pod"), output.Duration(q.Rested))
	}
	return fmt.Sprintf("%s for %s, from before the first cut until after the last", output.Plural(int64(q.Pods), "pod"), output.Duration(q.Rested))
}

func volumeRows(m *point.Manifest) [][]string {
	var rows [][]string
	for _, v := range m.Volumes {
		rows = append(rows, []string{
			v.Namespace + "/" + v.Claim, v.StorageClass, v.Method, string(v.Consistency), output.Bytes(v.Capacity),
			output.Bytes(v.Snapshot.Bytes), fmt.Sprint(v.Snapshot.Files), output.Bytes(v.Snapshot.NewBytes),
		})
	}
	return rows
}

func listText(t *output.Text, title string, n int, line func(i int) string) {
	if n == 0 {
		return
	}
	t.Section(title)
	for i := range n {
		t.Line("  %s", line(i))
	}
}

func consistencyText(c string) string {
	meaning := map[point.Consistency]string{
		point.Application: "quiesced, then cut at one instant", point.Crash: "all volumes cut at one instant",
		point.PerVolume: "each volume cut at an instant of its own", point.Fuzzy: "read while being written: a restore needs --accept-fuzzy",
	}[point.Consistency(c)]
	if meaning == "" {
		return c
	}
	return c + " (" + meaning + ")"
}

func agedTime(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s, %s", output.Time(t), output.Ago(t, now))
}

func positive(n int64) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// AppDetail is one application in full.
type AppDetail struct {
	App    *v1alpha1.Application
	Policy *v1alpha1.ProtectionPolicy // nil without one
	Points []Point                    // newest first
	Now    time.Time
}

// Document is the objects themselves.
func (d AppDetail) Document() any {
	return map[string]any{"application": d.App, "policy": d.Policy, "points": d.Points}
}

// shownPoints bounds the points in an application's description.
const shownPoints = 5

// Text is the application in sections.
func (d AppDetail) Text(t *output.Text) {
	app, s := d.App, &d.App.Status
	view := OfApplication(app, d.Policy, d.Now)
	t.Line("Application %s", app.VaultName())
	t.Fields("  ", "state", view.State, "why", view.Message, "namespaces", strings.TrimPrefix(namespacesText(app), "namespaces "),
		"only", narrowedText(app), "kinds", strings.Join(app.Spec.IncludeKinds, ", "), "without", strings.Join(app.Spec.ExcludeKinds, ", "),
		"volumes", volumesText(app.Spec.Volumes), "freeze", freezePolicy(app), "profiles", profilePolicy(app), "vault", app.Spec.Vault, "role", string(s.Role),
		"epoch", epochOf(s), "schedule", cmp.Or(Schedule(d.Policy), "none: captured only when asked"),
		"next", output.Time(TimeOf(s.NextCapture)), "objectives", objectivesText(d.Policy), "keeps", retentionText(d.Policy),
		"newest", cmp.Or(agedTime(TimeOf(s.NewestInstant), d.Now), "none"), "points", fmt.Sprint(s.Points),
		"verifies", cmp.Or(keeping.Verifies(d.Policy), "only when asked"), "verified", keeping.Verified(s.Verification, d.Now),
		"restore tests", cmp.Or(keeping.Tests(d.Policy), "only when asked"), "tested", keeping.Tested(s.RestoreTest, d.Now))
	var hooks []string
	for _, h := range app.Spec.Hooks {
		hooks = append(hooks, h.Name)
	}
	t.Fields("  ", "hooks", strings.Join(hooks, ", "))
	if texts := keeping.Copies(s.Verification, d.Now); len(texts) > 0 {
		t.Section("Verified in second copies")
		for _, text := range texts {
			t.Line("  %s", text)
		}
	}
	d.testSection(t)
	if len(d.Points) > 0 {
		t.Section("Newest points")
		views := Points{Points: d.Points[:min(len(d.Points), shownPoints)], Now: d.Now}
		views.Text(t)
	}
}

// testSection tells what the last scheduled restore test found.
func (d AppDetail) testSection(t *output.Text) {
	test := d.App.Status.RestoreTest
	if test == nil || test.At == nil {
		return
	}
	if len(test.Probes) > 0 {
		t.Section("Probes of the last restore test")
		var rows [][]string
		for _, p := range test.Probes {
			took := ""
			if p.Took != nil {
				took = output.Duration(p.Took.Duration)
			}
			rows = append(rows, []string{p.Name, map[bool]string{true: "passed", false: "FAILED"}[p.Passed], took, p.Message})
		}
		t.Table("  ", output.Columns("PROBE", "RESULT", ">TOOK", "MESSAGE"), rows)
	}
	listText(t, "What the copy was made without, or may reach", len(test.Warnings), func(i int) string { return test.Warnings[i] })
	listText(t, "Left behind by the last restore test", len(test.Leftovers), func(i int) string { return test.Leftovers[i] })
}

// profilePolicy says whether known databases are brought to rest.
func profilePolicy(app *v1alpha1.Application) string {
	if app.Spec.Profiles == v1alpha1.ProfilesNever {
		return "never"
	}
	return "those that are proven, by image; any by annotation: davit profiles lists them"
}

// freezePolicy says whether and for how long the file systems may be held still.
func freezePolicy(app *v1alpha1.Application) string {
	window := "10s"
	if w := app.Spec.Volumes.FreezeWindow; w != nil {
		window = output.Duration(w.Duration)
	}
	switch app.Spec.Volumes.Freeze {
	case v1alpha1.FreezeNever:
		return "never: each volume is cut at an instant of its own"
	case v1alpha1.FreezeRequired:
		return "required, " + window + " at most: no point unless all volumes are cut at one instant"
	}
	return "where possible, " + window + " at most"
}

func epochOf(s *v1alpha1.ApplicationStatus) string {
	if s.Epoch == 0 {
		return ""
	}
	return fmt.Sprintf("%d, held by site %s", s.Epoch, s.EpochSite)
}

func objectivesText(p *v1alpha1.ProtectionPolicy) string {
	if p == nil {
		return ""
	}
	var parts []string
	if d := p.Spec.Objectives.RPO; d != nil {
		parts = append(parts, "RPO "+output.Duration(d.Duration))
	}
	if d := p.Spec.Objectives.RTO; d != nil {
		parts = append(parts, "RTO "+output.Duration(d.Duration))
	}
	return strings.Join(parts, ", ")
}
