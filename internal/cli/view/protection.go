package view

import (
	"cmp"
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
)

// Protected is what `protect` did.
type Protected struct {
	Application *v1alpha1.Application
	Policy      *v1alpha1.ProtectionPolicy
	Epoch       int64
	First       string
	DryRun      bool
}

// Text is a sentence or two.
func (p Protected) Text(t *output.Text) {
	app := p.Application
	verb := "is protected"
	if p.DryRun {
		verb = "would be protected"
	}
	schedule := "only when asked by `backup`"
	if s := Schedule(p.Policy); s != "" {
		schedule = s
	}
	t.Line("%s %s: %s, into vault %s, %s.", app.VaultName(), verb, covers(app), app.Spec.Vault, schedule)
	if p.First != "" {
		t.Line("First recovery point: %s", p.First)
	}
}

// Document is the objects, or what was done.
func (p Protected) Document() any {
	if p.DryRun {
		return output.Documents{p.Policy, p.Application}
	}
	return struct {
		Application string `json:"application"`
		Vault       string `json:"vault"`
		Epoch       int64  `json:"epoch"`
		FirstPoint  string `json:"firstPoint,omitempty"`
	}{p.Application.VaultName(), p.Application.Spec.Vault, p.Epoch, p.First}
}

// Schedule is a policy's schedule in words, or "".
func Schedule(p *v1alpha1.ProtectionPolicy) string {
	switch {
	case p == nil:
		return ""
	case p.Spec.Schedule.Every != nil:
		return "every " + output.Duration(p.Spec.Schedule.Every.Duration)
	case p.Spec.Schedule.Cron != "":
		return "at " + p.Spec.Schedule.Cron + " " + cmp.Or(p.Spec.Schedule.TimeZone, "UTC")
	}
	return ""
}

// Sentence is a result that is one document, and one sentence for people.
type Sentence struct {
	Value any
	Line  string
}

// Text is the sentence.
func (o Sentence) Text(t *output.Text) { t.Line("%s", o.Line) }

// Document is the document.
func (o Sentence) Document() any { return o.Value }

// Condition is what a condition says when it is not True.
func Condition(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil || c.Status == metav1.ConditionTrue {
		return ""
	}
	if c.Message == "" {
		return c.Reason
	}
	return c.Reason + ": " + c.Message
}

// Rendered are the objects of an install that was not carried out.
type Rendered []unstructured.Unstructured

// Text lists them.
func (r Rendered) Text(t *output.Text) {
	var rows [][]string
	for _, o := range r {
		rows = append(rows, []string{o.GetKind(), o.GetNamespace(), o.GetName()})
	}
	t.Table("", output.Columns("KIND", "NAMESPACE", "NAME"), rows)
}

// Document is all of them.
func (r Rendered) Document() any {
	docs := output.Documents{}
	for _, o := range r {
		docs = append(docs, o.Object)
	}
	return docs
}

// Installed is what `install` did.
type Installed struct {
	Site    string        `json:"site"`
	Objects int           `json:"objects"`
	Took    time.Duration `json:"took"`
	Ready   bool          `json:"ready"`
	Next    string        `json:"-"`
}

// Text is two lines.
func (i Installed) Text(t *output.Text) {
	state := "applied"
	if i.Ready {
		state = "ready"
	}
	t.Line("Davit is %s at site %s: %s in %s.", state, i.Site, output.Plural(int64(i.Objects), "object"), output.Duration(i.Took))
	t.Line("Next: %s", i.Next)
}

// Document is all of it.
func (i Installed) Document() any { return i }

// Done is a result of one sentence.
type Done string

// Text is the sentence.
func (d Done) Text(t *output.Text) { t.Line("%s", string(d)) }

// Document holds it.
func (d Done) Document() any { return map[string]string{"result": string(d)} }

// Verified is what `verify` found.
type Verified struct {
	ID          string   `json:"id"`
	Application string   `json:"application"`
	How         string   `json:"how"` // "full" or "sample"
	Objects     int64    `json:"objects"`
	Volumes     int64    `json:"volumes"`
	Bytes       int64    `json:"bytes"`
	Damage      []string `json:"damage"`
	// VaultDamage is what is wrong in the vault besides this point: its
	// marker, keys, epochs, documents, signs of life, and blobs of volume data.
	VaultDamage []string      `json:"vaultDamage,omitempty"`
	Blobs       int64         `json:"blobs,omitempty"` // compared with their SHA-256
	Took        time.Duration `json:"took"`            // nanoseconds
}

// Text says whole, or names what is damaged.
func (v Verified) Text(t *output.Text) {
	defer func() {
		if v.Blobs > 0 {
			t.Line("%s of volume data compared with what was written.", output.Plural(v.Blobs, "blob"))
		}
		if len(v.VaultDamage) > 0 {
			t.Line("The vault itself is DAMAGED:")
		}
		for _, d := range v.VaultDamage {
			t.Line("  %s", output.OneLine(d))
		}
	}()
	if len(v.Damage) == 0 {
		verdict, volumes := "is whole", output.Plural(v.Volumes, "volume")
		if v.How == v1alpha1.ProvenSample {
			verdict, volumes = "shows no damage", "a sample of "+volumes
		}
		t.Line("%s %s: %s and %s read back, %s in %s.", v.ID, verdict, output.Plural(v.Objects, "object"),
			volumes, output.Bytes(v.Bytes), output.Duration(v.Took))
		return
	}
	t.Line("%s is DAMAGED and no longer offered:", v.ID)
	for _, d := range v.Damage {
		t.Line("  %s", d)
	}
}

// Document is all of it.
func (v Verified) Document() any { return v }

// PolicyOf returns the application's policy, or nil if it has none.
func PolicyOf(ctx context.Context, c client.Client, app *v1alpha1.Application) (*v1alpha1.ProtectionPolicy, error) {
	if app.Spec.Policy == "" {
		return nil, nil
	}
	var policy v1alpha1.ProtectionPolicy
	err := c.Get(ctx, client.ObjectKey{Namespace: app.Namespace, Name: app.Spec.Policy}, &policy)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", app.Spec.Policy, err)
	}
	return &policy, nil
}
