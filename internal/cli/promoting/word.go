package promoting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
)

// Word is what a person says of a promoted vault, and of which applications.
type Word struct {
	Vault        string    `json:"vault"`
	Lost         string    `json:"lost"` // id of the lost vault
	Promoted     time.Time `json:"promoted"`
	By           string    `json:"by"`
	Applications []Vouched `json:"applications"`
	// Moved are the sites that gave a sign of life in the promoted vault, Silent those
	// that captured what the copy had and gave none.
	Moved  []string `json:"moved"`
	Silent []string `json:"silent,omitempty"`
	// Mute are of Moved those that have not said in the promoted vault yet what they run.
	Mute []string `json:"mute,omitempty"`
	// Running are the applications that sites say they run which do not hold them.
	Running []Contradiction `json:"running,omitempty"`
	// Named are the applications about which nothing can be said, as a cluster bears the
	// name of those that are nobody's.
	Named  []string `json:"named,omitempty"`
	DryRun bool     `json:"dryRun,omitempty"`
}

// Contradiction is what a site that was moved over has published of an application.
type Contradiction struct {
	Application string    `json:"application"`
	Site        string    `json:"site"`
	Holder      string    `json:"holder"`
	At          time.Time `json:"at"` // by the vault's clock
}

// Vouched is one application of a Word.
type Vouched struct {
	Application string `json:"application"`
	Epoch       int64  `json:"epoch"` // the newest that is nobody's
	// Before is who said it before; empty: nobody.
	Before string `json:"before,omitempty"`
	// Noted are the sites that said, as they came over, that they held it in the lost
	// vault. Runs ask them by name, and the word is not about them.
	Noted  []string `json:"noted,omitempty"`
	nobody lease.Epoch
	newest lease.Epoch
}

// lostStopped notes that no site which was not moved over to a promoted vault still
// writes anything of it, or will, nor one that was, and noted nothing, what another holds.
func (h Host) lostStopped(cmd *cobra.Command, o *asked) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	project, word, err := h.word(ctx, o.copy)
	if err != nil {
		return err
	}
	word.DryRun = o.dryRun
	if o.dryRun || len(word.Applications) == 0 {
		return h.Print(word)
	}
	if len(word.Running) > 0 {
		r := word.Running[0]
		return exit.Refuse("`describe application` there says what keeps it from stopping; once it has, say it again (a site publishes every two minutes)",
			"site %s was moved over, and published at %s that it runs %s, which site %s holds", r.Site, output.Time(r.At), r.Application, r.Holder)
	}
	if !o.yes {
		h.Say("%s", word.question())
		if err := h.Ask(word.Lost, "the id of the lost vault"); err != nil {
			return err
		}
	}
	for _, a := range word.Applications {
		if err := lease.Say(ctx, project, a.Application, a.nobody, word.By, h.Now()); err != nil {
			return again(err)
		}
	}
	return h.counted(ctx, project, word)
}

// counted prints what was said, if all of it counts: a site may have come over since,
// with more of the lost vault.
func (h Host) counted(ctx context.Context, project *vault.Project, word Word) error {
	now := Word{Lost: word.Lost}
	if err := now.vouch(ctx, project); err != nil {
		return again(err)
	}
	for _, a := range now.Applications {
		if a.Before == "" {
			return again(fmt.Errorf("what was said of %s does not count: meanwhile a site came over that knows more of the lost vault", a.Application))
		}
	}
	return h.Print(word)
}

// word gathers what would be said, in the vault as this site has it.
func (h Host) word(ctx context.Context, name string) (*vault.Project, Word, error) {
	w := Word{Vault: name, Applications: []Vouched{}}
	c, err := h.Cluster()
	if err != nil {
		return nil, w, err
	}
	v, err := access.ChooseVault(ctx, c, name)
	if err != nil {
		return nil, w, err
	}
	if v.Spec.CopyOf != "" {
		return nil, w, exit.Refuse("`vault promote "+name+"` first, at every site that answers; then say it of vault "+v.Spec.CopyOf, "this site is not moved over to %s", name)
	}
	cfg, data, err := access.StoreConfig(ctx, c, v)
	if err != nil {
		return nil, w, err
	}
	keyring, err := vault.ParseKeyring(data)
	if err != nil {
		return nil, w, fmt.Errorf("open vault %s: %w", name, err)
	}
	store, err := h.Store(ctx, cfg)
	if err != nil {
		return nil, w, exit.OfVault(err)
	}
	state, err := promotion.Look(ctx, store)
	if errors.Is(err, promotion.ErrOther) {
		return nil, w, exit.Refuse("", "vault %s was never promoted: there is nothing to say of it", name)
	}
	if err != nil {
		return nil, w, exit.OfVault(err)
	}
	project, err := keyring.Open(ctx, store)
	if err != nil {
		return nil, w, exit.OfVault(err)
	}
	w.Lost, w.Promoted, w.By = state.Of, state.Record.Created, permit.Self(ctx, c).Name
	h.Step("looking at the applications of vault %s", name)
	if err := w.gather(ctx, project, h.Now()); err != nil {
		return nil, w, exit.OfVault(err)
	}
	return project, w, nil
}

// gather reads of which applications there is something to say, which sites are known,
// and what those say.
func (w *Word) gather(ctx context.Context, p *vault.Project, now time.Time) error {
	signs, err := p.Sites(ctx)
	if err != nil {
		return err
	}
	facts, _, err := bulletin.Read(ctx, p)
	if err != nil {
		return err
	}
	for _, s := range signs {
		w.Moved = append(w.Moved, s.Site)
		if facts[s.Site] == nil {
			w.Mute = append(w.Mute, s.Site)
		}
	}
	if err := w.vouch(ctx, p); err != nil {
		return err
	}
	for _, a := range w.Applications {
		if err := w.contradicted(ctx, p, a.Application, a.newest, facts, now); err != nil {
			return err
		}
		if err := w.captured(ctx, p, a.Application); err != nil {
			return err
		}
	}
	slices.Sort(w.Silent)
	return nil
}

// vouch reads which applications the promotion claimed as nobody's, and what was said of
// them.
func (w *Word) vouch(ctx context.Context, p *vault.Project) error {
	apps, err := lease.Claimed(ctx, p)
	if err != nil {
		return err
	}
	movers, err := lease.Movers(ctx, p, "")
	if err != nil {
		return err
	}
	for _, app := range apps {
		history, err := lease.New(p).History(ctx, app)
		if err != nil {
			return err
		}
		nobody, ok := lease.Unheld(history)
		if _, shared := lease.Namesake(history); shared {
			w.Named = append(w.Named, app)
		}
		if !ok || nobody.Claim.Promotion.From != w.Lost {
			continue
		}
		said, counts, err := lease.Said(ctx, p, app, history)
		if err != nil {
			return err
		}
		one := Vouched{Application: app, Epoch: nobody.Number, nobody: nobody, newest: history[len(history)-1], Noted: lease.Holders(nil, movers[app])}
		if counts {
			one.Before = said.By
		}
		w.Applications = append(w.Applications, one)
	}
	return nil
}

// contradicted adds the sites that say they run what another holds, or nobody. Those
// that noted nothing as they came over no run asks for a proof.
func (w *Word) contradicted(ctx context.Context, p *vault.Project, app string, newest lease.Epoch, facts map[string]*preflight.Site, now time.Time) error {
	claimed, err := lease.Written(ctx, p, app, newest.Number)
	if err != nil {
		return err
	}
	for _, site := range slices.Sorted(maps.Keys(facts)) {
		if f := facts[site]; site != newest.Claim.Site && f.Says(app, claimed, now) {
			w.Running = append(w.Running, Contradiction{Application: app, Site: site, Holder: newest.Claim.Site, At: f.Written})
		}
	}
	return nil
}

// captured adds the sites that captured an application and were not moved over.
func (w *Word) captured(ctx context.Context, p *vault.Project, app string) error {
	infos, err := p.Points(ctx, app)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if m := info.Manifest; m != nil && !slices.Contains(w.Moved, m.Site) && !slices.Contains(w.Silent, m.Site) {
			w.Silent = append(w.Silent, m.Site)
		}
	}
	return nil
}

// Document is all of it.
func (w Word) Document() any { return w }

// Text says what runs do from now on.
func (w Word) Text(t *output.Text) {
	names := make([]string, 0, len(w.Applications))
	for _, a := range w.Applications {
		names = append(names, a.Application)
	}
	if len(w.Named) > 0 {
		t.Line("A cluster bears the name %s: nothing can be said of %s, runs ask for it.", promotion.Nobody, list(w.Named))
	}
	switch {
	case len(names) == 0 && len(w.Named) > 0:
	case len(names) == 0:
		t.Line("Vault %s has no application that was in the lost one: there is nothing to say.", w.Vault)
	case w.DryRun:
		w.about(t)
		t.Line("Nothing was changed.")
	default:
		t.Line("Noted: no site that was not moved over to vault %s writes these: %s.", w.Vault, strings.Join(names, ", "))
		t.Line("Runs ask for site %s no more, also planned ones. The fence that they report stays none (forced): your word is no proof.", promotion.Nobody)
	}
}

// about says what is known of it.
func (w Word) about(t *output.Text) {
	t.Line("Vault %s took the place of vault %s on %s. Moved over to it: %s.", w.Vault, w.Lost, output.Time(w.Promoted), list(w.Moved))
	if len(w.Silent) > 0 {
		t.Line("Not moved over, and captured some of it once: %s. There may be others.", list(w.Silent))
	}
	if len(w.Mute) > 0 {
		t.Line("Moved over, and has not said yet what it runs: %s. Wait for it, two minutes at most if it lives.", list(w.Mute))
	}
	for _, r := range w.Running {
		t.Line("Site %s published at %s that it runs %s, which site %s holds.", r.Site, output.Time(r.At), r.Application, r.Holder)
	}
	for _, a := range w.Applications {
		before := ""
		if a.Before != "" {
			before = ": said already, by " + a.Before
		}
		if len(a.Noted) > 0 {
			before += "; not about " + list(a.Noted) + ", which noted that they held it: runs ask them"
		}
		t.Line("  %s%s", a.Application, before)
	}
}

// question is what a person agrees to.
func (w Word) question() string {
	t := &output.Text{}
	w.about(t)
	t.Line("Say that no site which was not moved over writes any of these, or will before it is moved: it is off, its workloads or its disks are gone.")
	t.Line("And that each which was moved over by a davit that noted nothing has stopped, on all its nodes, what another site holds now: no run asks it. Which noted something is said above.")
	t.Line("Where one does, it and the site that a run brings them to both write, and nothing shows it. It cannot be taken back: should one turn up, stop it, then `vault promote` there.")
	return t.String()
}
