package view

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// Point is one recovery point as commands show it.
type Point struct {
	ID          string               `json:"id"`
	Application string               `json:"application"`
	Phase       v1alpha1.PointPhase  `json:"phase"`
	Instant     time.Time            `json:"instant,omitzero"`
	Consistency string               `json:"consistency,omitempty"`
	Site        string               `json:"site,omitempty"`
	Epoch       int64                `json:"epoch,omitempty"`
	Objects     int64                `json:"objects"`
	Volumes     int64                `json:"volumes"`
	Bytes       int64                `json:"bytes"`
	StoredBytes int64                `json:"storedBytes"`
	Warnings    int64                `json:"warnings,omitempty"`
	Pinned      bool                 `json:"pinned,omitempty"`
	Verified    time.Time            `json:"verified,omitzero"`     // when it was last proven
	VerifiedHow string               `json:"verifiedHow,omitempty"` // how: "full" or "sample"
	Damaged     bool                 `json:"damaged,omitempty"`
	Copies      []string             `json:"copies,omitempty"`      // vaults with a whole second copy
	CopyProofs  []v1alpha1.CopyProof `json:"copyProofs,omitempty"`  // what verification found in them
	Test        *Test                `json:"restoreTest,omitempty"` // its newest restore test
	Read        string               `json:"read,omitempty"`        // by whom, and until when
	Message     string               `json:"message,omitempty"`
	// Newest says that it is the application's newest that may be restored, and NewestProven
	// that it is the newest of those that something read back or brought up.
	Newest       bool `json:"newest,omitempty"`
	NewestProven bool `json:"newestProven,omitempty"`
}

// MarkNewest marks of each application the point that a restore would take, and the newest
// that is proven, as point.Newest orders them. It is to be given all that a restore may choose from.
func MarkNewest(points []Point) {
	newest, proven := map[string]*Point{}, map[string]*Point{}
	keep := func(of map[string]*Point, v *Point) {
		if old := of[v.Application]; old == nil || cmp.Or(cmp.Compare(v.Epoch, old.Epoch), v.Instant.Compare(old.Instant), cmp.Compare(v.ID, old.ID)) > 0 {
			of[v.Application] = v
		}
	}
	for i := range points {
		v := &points[i]
		if v.Phase != v1alpha1.PointAvailable {
			continue
		}
		if v.Consistency != string(point.Fuzzy) { // which a restore takes only if it is told to
			keep(newest, v)
		}
		if v.proven() {
			keep(proven, v)
		}
	}
	for _, v := range newest {
		v.Newest = true
	}
	for _, v := range proven {
		v.NewestProven = true
	}
}

// proven tells whether something read the point back or brought it up, and nothing spoke
// against it.
func (p *Point) proven() bool {
	passed := p.Test != nil && p.Test.Passed
	return !p.Damaged && (passed || p.Test == nil && !p.Verified.IsZero())
}

// OfObject reads a RecoveryPoint object.
func OfObject(p *v1alpha1.RecoveryPoint) Point {
	s := &p.Status
	view := Point{
		ID: p.Name, Application: ApplicationOf(p), Phase: s.Phase, Instant: TimeOf(s.Instant), Consistency: s.Consistency,
		Site: s.Site, Epoch: s.Epoch, Objects: s.Objects, Volumes: s.Volumes, Bytes: s.Bytes, StoredBytes: s.StoredBytes,
		Warnings: s.Warnings, Pinned: p.Spec.Pinned, Message: Condition(s.Conditions, v1alpha1.ConditionReady),
		Copies: s.Copies, CopyProofs: s.CopyProofs,
	}
	if c := meta.FindStatusCondition(s.Conditions, project.ConditionRead); c != nil {
		view.Read = c.Message
	}
	if view.Phase == "" {
		view.Phase, view.Message = v1alpha1.PointPending, "the agent has not begun"
	}
	if p.DeletionTimestamp != nil {
		view.Phase = v1alpha1.PointDeleting
	}
	if s.Step != "" && view.Phase == v1alpha1.PointCapturing {
		view.Message = s.Step
	}
	if v := s.Verification; v != nil {
		if view.Damaged = v.Damaged; v.Damaged {
			view.Message = v.Message
			if view.Phase == v1alpha1.PointAvailable { // the agent has not read the verdict yet
				view.Phase = v1alpha1.PointQuarantined
			}
		} else {
			view.Verified, view.VerifiedHow = v.At.Time, v.How
		}
	}
	if t := s.RestoreTest; t != nil {
		view.test(Test{At: t.At.Time, Passed: t.Passed, RTO: durationOf(t.RTO), Message: t.Message})
	}
	return view
}

// Test is what a restore test of a point found.
type Test struct {
	At      time.Time     `json:"at"`
	Passed  bool          `json:"passed"`
	RTO     time.Duration `json:"rto,omitempty"`
	Message string        `json:"message,omitempty"`
	// Unproven says why it proved nothing; such a test leaves no trace on the point.
	Unproven string `json:"unproven,omitempty"`
}

// test shows a restore test; one that failed matters more than that the bytes
// are whole.
func (p *Point) test(t Test) {
	p.Test = &t
	if !t.Passed && p.Message == "" {
		p.Message = "restore test failed: " + t.Message
	}
}

func durationOf(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// OfVault reads what the vault knows of a point; summary has quarantine decided.
func OfVault(app string, info vault.PointInfo, summary point.Point) Point {
	view := Point{
		ID: info.ID, Application: app, Phase: v1alpha1.PointAvailable, Pinned: summary.Pinned,
		Damaged: summary.Damaged,
	}
	for _, mark := range slices.Backward(info.Marks) {
		if mark.Kind == vault.MarkVerified {
			view.Verified, view.VerifiedHow = mark.At, cmp.Or(mark.How, v1alpha1.ProvenFull)
			break
		}
	}
	if m := info.Tested(); m != nil {
		view.test(Test{At: m.At, Passed: m.Kind == vault.MarkVerified, RTO: m.RTO, Message: m.Note})
	}
	switch {
	case summary.Deleting:
		view.Phase, view.Message = v1alpha1.PointDeleting, "deletion has begun"
	case summary.Damaged:
		view.Phase = v1alpha1.PointFailed
		if info.Err != nil {
			view.Message = info.Err.Error()
		}
	case summary.Quarantined:
		view.Phase, view.Message = v1alpha1.PointQuarantined, quarantineReason(info)
	}
	if m := info.Manifest; m != nil {
		view.Instant, view.Consistency, view.Site, view.Epoch = m.Instant, string(m.Consistency), m.Site, m.Epoch
		view.Objects, view.Volumes, view.Bytes, view.StoredBytes = m.Objects, int64(len(m.Volumes)), m.Bytes, m.StoredBytes
		view.Warnings = int64(len(m.Warnings))
	}
	return view
}

// ReadBy is the point with those of the readers who read it.
func (p Point) ReadBy(all []reading.Reader) Point {
	for _, r := range all {
		if r.Application == p.Application && r.Point == p.ID {
			p.Read = joinNotes(r.String(), p.Read)
		}
	}
	return p
}

func quarantineReason(info vault.PointInfo) string {
	for _, mark := range slices.Backward(info.Quarantines()) {
		return mark.Note
	}
	return "written under an epoch that had been superseded"
}

// Points are recovery points in the order in which they are shown.
type Points struct {
	Points []Point   `json:"points"`
	Now    time.Time `json:"-"`
	Hidden int       `json:"-"` // points left out because they cannot be restored
	// OneApp says that one application was asked for: nobody needs to be told which.
	OneApp bool `json:"-"`
	// AsOf is when the agent last read the vaults to their end, of which these are; zero:
	// they were read just now.
	AsOf time.Time `json:"asOf,omitzero"`
}

// ShownAsOf is when the cluster's vaults were last read to their end for the points that it
// shows, the oldest of them; zero where it does not say.
func ShownAsOf(ctx context.Context, c client.Client) (oldest time.Time) {
	var all v1alpha1.VaultList
	if c.List(ctx, &all) != nil { // a remark beside what there is
		return oldest
	}
	for i := range all.Items {
		if all.Items[i].Spec.CopyOf != "" {
			continue // what was shown of it while it was the vault is old for ever
		}
		at, err := time.Parse(time.RFC3339, all.Items[i].Annotations[project.AnnotationShown])
		if err == nil && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	return oldest
}

// Text is a table, newest first.
func (p Points) Text(t *output.Text) {
	if len(p.Points) == 0 {
		t.Line("No recovery point to show.")
	} else {
		copies := "+COPIES" // worth a column where there are any
		if slices.ContainsFunc(p.Points, func(v Point) bool { return len(v.Copies) > 0 }) {
			copies = "COPIES"
		}
		app, phase := "APPLICATION", "PHASE"
		if p.OneApp {
			app = "+" + app
		}
		if !slices.ContainsFunc(p.Points, func(v Point) bool { return v.Phase != v1alpha1.PointAvailable }) {
			phase = "+" + phase
		}
		t.Table("", output.Columns("POINT", app, "AGE", "+INSTANT", phase, "CONSISTENCY", ">OBJECTS", ">VOLUMES", ">SIZE", "+>STORED", "+SITE", "+>EPOCH", "+>WARNINGS", "VERIFIED", copies, "NOTE"), p.rows())
	}
	if p.Hidden > 0 {
		t.Line("%s not shown that cannot be restored: --all", output.Plural(int64(p.Hidden), "point"))
	}
	if !p.AsOf.IsZero() {
		t.Line("As of %s, when this site's agent last read all of the vault; --from-vault reads it now.", output.Ago(p.AsOf, p.Now))
	}
}

func (p Points) rows() [][]string {
	var rows [][]string
	for _, v := range p.Points {
		note := output.OneLine(v.Message)
		if v.Warnings > 0 { // describe says which
			note = joinNotes(output.Plural(v.Warnings, "warning"), note)
		}
		if v.Read != "" {
			note = joinNotes(v.Read, note)
		}
		if v.Pinned {
			note = joinNotes("pinned", note)
		}
		if v.Damaged {
			note = joinNotes("DAMAGED", note)
		}
		note = joinNotes(v.place(), note)
		rows = append(rows, []string{
			v.ID, v.Application, output.Age(v.Instant, p.Now), output.Time(v.Instant), string(v.Phase), v.Consistency,
			fmt.Sprint(v.Objects), fmt.Sprint(v.Volumes), output.Bytes(v.Bytes), output.Bytes(v.StoredBytes), v.Site,
			fmt.Sprint(v.Epoch), fmt.Sprint(v.Warnings), verifiedText(v, p.Now), copiesText(v, p.Now), note,
		})
	}
	return rows
}

// place says of a point that it is one of the newest.
func (p Point) place() string {
	switch {
	case p.Newest && p.NewestProven:
		return "newest, proven"
	case p.Newest:
		return "newest"
	case p.NewestProven:
		return "newest proven"
	}
	return ""
}

// verifiedText is when the point was last proven, and how.
func verifiedText(v Point, now time.Time) string {
	if v.Verified.IsZero() {
		return ""
	}
	return strings.TrimSpace(output.Age(v.Verified, now) + " " + v.VerifiedHow)
}

// copiesText names the copies that hold the point, and says when it was last
// proven in each, and how.
func copiesText(v Point, now time.Time) string {
	texts := slices.Clone(v.Copies)
	for _, proof := range v.CopyProofs {
		text := fmt.Sprintf("%s (%s %s)", proof.Vault, output.Age(proof.At.Time, now), proof.How)
		if proof.Damaged {
			text = proof.Vault + " (DAMAGED)"
		}
		if i := slices.Index(texts, proof.Vault); i >= 0 {
			texts[i] = text
		}
	}
	return strings.Join(texts, ", ")
}

func joinNotes(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// Document is all of them.
func (p Points) Document() any { return p }

// ApplicationOf is the application's name in the vault.
func ApplicationOf(p *v1alpha1.RecoveryPoint) string {
	if app := p.Labels[v1alpha1.LabelApplication]; app != "" {
		return app
	}
	if p.Namespace == v1alpha1.SystemNamespace {
		return p.Spec.Application
	}
	return p.Namespace + "." + p.Spec.Application
}

// TimeOf is the time, or zero for nil.
func TimeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
