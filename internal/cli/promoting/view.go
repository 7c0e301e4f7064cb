package promoting

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/reconcile/plan"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
)

// object is the first vault's Vault as it is from now on.
func (w *work) object() *v1alpha1.Vault {
	at := w.second.Spec
	v := &v1alpha1.Vault{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Vault"},
		ObjectMeta: metav1.ObjectMeta{Name: at.CopyOf},
		Spec:       v1alpha1.VaultSpec{SecretName: "vault-" + at.CopyOf},
	}
	if kept := w.kept(); w.first == nil && kept != nil {
		v.Labels, v.Annotations, v.Spec = kept.Labels, kept.Annotations, kept.Spec
	}
	if w.first != nil {
		v.Labels, v.Annotations, v.Spec = w.first.Labels, w.first.Annotations, w.first.Spec
	}
	v.Spec.URL, v.Spec.CABundle, v.Spec.Project, v.Spec.FailureDomain = at.URL, at.CABundle, at.Project, at.FailureDomain
	v.Spec.Immutability, v.Spec.NoOverwrite, v.Spec.Bandwidth, v.Spec.CopyOf = at.Immutability, at.NoOverwrite, at.Bandwidth, ""
	return v
}

// annotationKept has on the copy's Vault what the first one's said, from before
// that is deleted until it is there again.
const annotationKept = "davit.dev/promoted-vault"

// kept is what the first vault's Vault said, where a call that died has deleted it.
func (w *work) kept() *v1alpha1.Vault {
	text := w.second.Annotations[annotationKept]
	v := &v1alpha1.Vault{}
	if text == "" || json.Unmarshal([]byte(text), v) != nil || v.Name != w.second.Spec.CopyOf {
		return nil
	}
	return v
}

// keep writes down what the first vault's Vault says.
func (w *work) keep(ctx context.Context) error {
	text, err := json.Marshal(v1alpha1.Vault{
		ObjectMeta: metav1.ObjectMeta{Name: w.first.Name, Labels: w.first.Labels, Annotations: w.first.Annotations}, Spec: w.first.Spec,
	})
	if err != nil {
		return fmt.Errorf("encode Vault %s: %w", w.first.Name, err)
	}
	before := w.second.DeepCopy() // the agent has changed its status since
	metav1.SetMetaDataAnnotation(&w.second.ObjectMeta, annotationKept, string(text))
	if err := w.c.Patch(ctx, w.second, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("write down in Vault %s what Vault %s says: %w", w.second.Name, w.first.Name, err)
	}
	return nil
}

// unasked tells whether nothing here could ask the first vault whether it is lost.
func (w *work) unasked() bool { return w.first == nil && w.kept() == nil && !w.state.Done }

// save writes Secret and Vault. Locks of the lost vault that the copy does not
// have cannot be taken off a Vault: there it is made anew.
func (w *work) save(ctx context.Context, object *v1alpha1.Vault, keyring vault.Keyring) error {
	if w.first != nil && w.first.Spec.Immutability != nil && w.first.Spec.URL != object.Spec.URL {
		if err := w.keep(ctx); err != nil {
			return err
		}
		if err := w.c.Delete(ctx, w.first); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete Vault %s: %w", w.first.Name, err)
		}
	}
	return admission.Save(ctx, w.c, object, w.cfg, keyring)
}

// foresee fills in what will become of each application, and what is lost.
func (w *work) foresee(ctx context.Context, view *Promoted) error {
	var apps []promotion.App
	if !w.moved {
		var err error
		if apps, err = w.apps(ctx); err != nil {
			return err
		}
	}
	var err error
	if view.Applications, err = w.promoter.Foresee(ctx, apps); err != nil {
		return err
	}
	copied := map[string]bool{}
	for _, o := range view.Applications {
		for _, id := range o.IDs {
			copied[id] = true
		}
	}
	var points v1alpha1.RecoveryPointList
	if err := w.c.List(ctx, &points, client.MatchingLabels{project.LabelVault: view.Vault}); err != nil {
		return fmt.Errorf("list recovery points: %w", err)
	}
	for i := range points.Items {
		rp := &points.Items[i]
		if rp.Status.Phase == v1alpha1.PointAvailable && !copied[rp.Name] && rp.Status.Instant != nil {
			view.Lost = append(view.Lost, Lost{Application: project.Application(rp), Point: rp.Name, Instant: rp.Status.Instant.Time})
		}
	}
	slices.SortFunc(view.Lost, func(a, b Lost) int { return a.Instant.Compare(b.Instant) })
	if err := w.heldHere(ctx, view); err != nil {
		return err
	}
	return w.plansHere(ctx, view)
}

// heldHere names what runs hold at rest.
func (w *work) heldHere(ctx context.Context, view *Promoted) error {
	var all v1alpha1.ApplicationList
	if err := w.c.List(ctx, &all); err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	for i := range all.Items {
		a := &all.Items[i]
		if runs := a.HeldBy(); len(runs) > 0 && a.Spec.Vault == view.Vault {
			view.Held = append(view.Held, Held{Application: a.VaultName(), Namespace: a.Namespace, Name: a.Name, Runs: runs})
		}
	}
	return nil
}

// plansHere counts this site's plans: the copy has none, and this site's agent
// keeps them in the vault again.
func (w *work) plansHere(ctx context.Context, view *Promoted) error {
	var plans v1alpha1.RecoveryPlanList
	if err := w.c.List(ctx, &plans); err != nil {
		return fmt.Errorf("list plans: %w", err)
	}
	for i := range plans.Items {
		c := meta.FindStatusCondition(plans.Items[i].Status.Conditions, v1alpha1.ConditionMirrored)
		if c != nil && c.Reason == plan.ReasonDiffers {
			view.Plans = append(view.Plans, plans.Items[i].Name+" (not the version that counted)")
			continue
		}
		view.Plans = append(view.Plans, plans.Items[i].Name)
	}
	return nil
}

// Lost is a point of the lost vault that the copy does not have.
type Lost struct {
	Application string    `json:"application"`
	Point       string    `json:"point"`
	Instant     time.Time `json:"instant"`
}

// Promoted is what `vault promote` did, or would do.
type Promoted struct {
	Copy         string              `json:"copy"`
	Vault        string              `json:"vault"`
	Site         string              `json:"site"`
	DryRun       bool                `json:"dryRun,omitempty"`
	Already      bool                `json:"already,omitempty"` // another site promoted it before
	Applications []promotion.Outcome `json:"applications"`
	Lost         []Lost              `json:"lost"`
	Plans        []string            `json:"plans"`
	// Silence is why the first vault gave no answer. Unasked: this cluster could not ask it.
	Silence string `json:"silence,omitempty"`
	Unasked bool   `json:"unasked,omitempty"`
	// Held are stopped, and nobody lets them go any more.
	Held []Held `json:"held,omitempty"`
	// Rotations are those of the data key that the copy does not have.
	Rotations int64     `json:"rotationsNotInCopy,omitempty"`
	Now       time.Time `json:"-"`
}

// Document is all of it.
func (p Promoted) Document() any { return p }

// Text says who may write what, what is lost, and what to do next.
func (p Promoted) Text(t *output.Text) {
	verb := map[bool]string{true: "would be", false: "is"}[p.DryRun]
	t.Line("Vault %s %s what was its second copy %s; site %s %s moved over to it.", p.Vault, verb, p.Copy, p.Site, verb)
	p.outcomes(t)
	if p.DryRun {
		t.Line("Nothing was changed.")
		return
	}
	t.Line("Next: `vault promote %s` at every other site. `status` says when this one captures again; the first capture of each volume reads all of it.", p.Copy)
	t.Line("Once all are moved and you made sure that what is left has stopped: `vault promote %s --lost-stopped`, at one of them. Until then no switchover or failback begins.", p.Vault)
	t.Line("Then give the vault a second copy: `vault add NAME URL --copy-of %s`. Plans that declare by themselves are armed anew.", p.Vault)
}

// Held is an application that runs hold at rest, which are lost with the vault.
type Held struct {
	Application string   `json:"application"`
	Namespace   string   `json:"namespace"`
	Name        string   `json:"name"`
	Runs        []string `json:"runs"`
}

// mostLost bounds the lost points that are named one by one.
const mostLost = 10

func (p Promoted) outcomes(t *output.Text) {
	rows := make([][]string, 0, len(p.Applications))
	for _, o := range p.Applications {
		newest := "none"
		if !o.Newest.IsZero() {
			newest = output.Age(o.Newest, p.Now) + " old"
		}
		rows = append(rows, []string{o.App, output.Plural(int64(o.Points), "point"), newest, says(o, p.Site)})
	}
	t.Table("", output.Columns("APPLICATION", "IN THE COPY", "NEWEST", "WHO MAY WRITE"), rows)
	if len(p.Lost) > 0 {
		t.Line("Lost, for the copy does not have them: %s.", output.Plural(int64(len(p.Lost)), "point"))
		for _, l := range p.Lost[max(0, len(p.Lost)-mostLost):] {
			t.Line("  %s, %s old", l.Point, output.Age(l.Instant, p.Now))
		}
	}
	for _, h := range p.Held {
		t.Line("%s is held at rest here by run %s, which is lost with the vault: it stays stopped. If nobody carries that on in another vault: `runs abandon %s --reason …`, and resume what the run suspended.",
			h.Application, strings.Join(h.Runs, ", "), h.Runs[0])
	}
	if p.Rotations > 0 {
		t.Line("%s of the data key not in the copy: whom they removed can read it again. `vault keys ls` says who can; `vault keys remove` after this.", output.Plural(p.Rotations, "rotation"))
	}
	t.Line("Lost: journals and reports of runs, certificates and backups of consoles, and plans that no site has. This site has plans: %s.", list(p.Plans))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// says tells who may write, and whether this site is to prove that it does not.
func says(o promotion.Outcome, self string) string {
	if o.Noted {
		return who(o, self) + ". Site " + self + " held it: runs want its proof that it has stopped"
	}
	return who(o, self)
}

func who(o promotion.Outcome, self string) string {
	switch {
	case o.Verdict == promotion.Here && o.From != "":
		return fmt.Sprintf("site %s (epoch %d), instead of site %s, which is stopped: %s captured there since not offered",
			self, o.Epoch, o.From, output.Plural(int64(o.Dropped), "point"))
	case o.Verdict == promotion.Here:
		return fmt.Sprintf("site %s, which goes on (epoch %d)", self, o.Epoch)
	case o.Verdict == promotion.Elsewhere && o.Newer > 0:
		return fmt.Sprintf("site %s (epoch %d): it is stopped here. Site %s had read epoch %d of the lost vault, which is newer than what site %s held: another site may run it too, move that one over",
			o.Site, o.Epoch, self, o.Newer, o.Site)
	case o.Verdict == promotion.Elsewhere:
		return fmt.Sprintf("site %s (epoch %d): it is stopped here", o.Site, o.Epoch)
	case o.Leased:
		return "nobody: it ran here under a lease, and another site may have taken it over since. If none has: --go-on " + o.App
	}
	text := "nobody, until the site that held it comes over, or one takes it over"
	if o.LastSite != "" {
		text += fmt.Sprintf("; last captured at site %s", o.LastSite)
	}
	return text
}

// question is what a person agrees to.
func (p Promoted) question() string {
	t := &output.Text{}
	t.Line("Give vault %s up for good, and make its second copy %s the vault in its place.", p.Vault, p.Copy)
	switch {
	case p.Unasked:
		t.Line("This cluster does not have vault %s, and cannot ask it whether it lives.", p.Vault)
	case p.Silence != "":
		t.Line("It gave no answer: %s.", p.Silence)
	}
	p.outcomes(t)
	t.Line("A site that does not hear of this goes on as before, also with what is taken over from it (fence: none, forced).")
	t.Line("Should the first vault come back, sites that still have it would go on with it: delete it, or revoke its credentials.")
	return t.String()
}
