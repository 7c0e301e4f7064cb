// Package promoting is the command line's `vault promote`: a second copy of a
// vault that is lost becomes the vault, and this site is moved over to it.
package promoting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/keys"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// answerWithin is how long a vault that may be lost has for an answer.
const answerWithin = 15 * time.Second

// Host is what the command line gives the command.
type Host struct {
	keys.Host
	Cluster func() (client.Client, error)
	// Store opens a store by what its Vault and Secret say.
	Store func(ctx context.Context, cfg backend.Config) (vault.Store, error)
}

type asked struct {
	copy   string
	yes    bool
	dryRun bool
	// goOn names applications that ran here under a lease and go on all the same.
	goOn []string
	// gone says that a person knows that the first vault is, where nothing asks it.
	gone bool
	// stopped says that no site which was not moved over writes any more.
	stopped bool
}

// Command makes `vault promote`.
func Command(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "promote COPY",
		Short: "Make a second copy the vault, for the first one is lost",
		Long: `Makes the second copy COPY the vault, in place of the one that it is a copy of, and moves this site over to it: the Vault of the
lost one then names the store of the copy, so applications, policies and plans stay as they are. Give it once at every site, first
where most runs. It is refused while this site gets an answer from the first vault.

What this site runs goes on: the newest epoch that this site held is its word. What it ran under a lease does not: nodes have
stopped it, and another site may have taken it over since; --go-on says of one that none has. What another site holds goes on once
that one has come over. What nobody holds is taken over with "restore --take-over". The sites' volumes begin new repositories: the next capture
of each takes as long as its first.

A site that is cut off hears of nothing: what it runs, it runs until it is moved or fenced. Make sure that the first vault does
not come back: delete its bucket, or revoke its credentials. --dry-run says all that is lost. Killed, give the same command again.

What this site ran and does not go on with is noted in the vault, before it is moved: runs of what it held want its proof that it has
stopped, by its name, as of any site that held it.

With --lost-stopped, once at one site, after all sites that answer have been moved over: notes in VAULT, as it is called now, that no
other site still writes what was in the lost vault, or will; and that those which a davit moved that noted nothing have stopped what
another holds. Nothing can prove that. Until somebody says it, each run asks for site "nobody": a failover wants --lost nobody, a
switchover or failback is refused. It takes the lost vault's id, typed, or --yes.`,
		Example: `  davit vault promote second --dry-run
  davit vault promote second
  davit vault promote main --lost-stopped`,
		Args: h.Args(1, "COPY"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.copy = given[0]
			if o.stopped && (len(o.goOn) > 0 || o.gone) {
				return exit.Usage("promote first, at every site", "--lost-stopped is said after the promotion: --go-on and --first-is-gone do not go with it")
			}
			if o.stopped {
				return h.lostStopped(cmd, &o)
			}
			return h.run(cmd, &o)
		},
	}
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd.Flags().StringSliceVar(&o.goOn, "go-on", nil, "an application that ran here under a lease goes on: no other site has taken it over (two would write)")
	cmd.Flags().BoolVar(&o.gone, "first-is-gone", false, "with --yes, where this cluster does not have the first vault and cannot ask it: it is gone")
	cmd.Flags().BoolVar(&o.stopped, "lost-stopped", false, "say of a promoted VAULT that no site which was not moved over to it still writes, or will")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done and what is lost")
	return cmd
}

// work is one call of the command.
type work struct {
	Host
	asked   *asked
	c       client.Client
	self    lease.Identity
	domain  string // the site's failure domain
	second  *v1alpha1.Vault
	first   *v1alpha1.Vault // nil: this site has none
	cfg     backend.Config  // of the copy
	keyring vault.Keyring   // this site's, as it was for the lost vault
	store   vault.Store
	state   promotion.State
	// silence is why the first vault gave no answer.
	silence string
	// rotations of the data key are in the first vault, and not in the copy.
	rotations int64
	// moved says that the first vault's Secret is for the promoted one already.
	moved    bool
	promoter *promotion.Promoter
}

func (h Host) run(cmd *cobra.Command, o *asked) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	w := &work{Host: h, asked: o}
	if err := w.prepare(ctx, o.copy); err != nil {
		return err
	}
	view := Promoted{Copy: o.copy, Vault: w.second.Spec.CopyOf, Site: w.self.Site, DryRun: o.dryRun, Already: w.state.Done, Silence: w.silence, Unasked: w.unasked(), Rotations: w.rotations, Now: h.Now()}
	if err := w.foresee(ctx, &view); err != nil {
		return err
	}
	if o.dryRun {
		return h.Print(view)
	}
	if o.yes && view.Unasked && !o.gone {
		return exit.Refuse("make sure that no site gets an answer from it, then give --first-is-gone as well",
			"this cluster does not have vault %s, and cannot ask it whether it is lost", view.Vault)
	}
	if !o.yes {
		h.Say("%s", view.question())
		if err := h.Ask(view.Vault, "the name of the lost vault"); err != nil {
			return err
		}
	}
	// Found missing later, this right would leave the site between two vaults.
	if err := w.c.Delete(ctx, w.second.DeepCopy(), client.DryRunAll); err != nil {
		return fmt.Errorf("see whether Vault %s may be deleted: %w", w.second.Name, err)
	}
	return w.carryOut(ctx, view)
}

// carryOut does what view says.
func (w *work) carryOut(ctx context.Context, view Promoted) error {
	w.Step("promoting %s", w.store)
	record, err := w.promoter.Promote(ctx)
	if err != nil {
		return again(err)
	}
	if !w.moved { // else what is known here is of the new vault
		apps, err := w.apps(ctx)
		if err != nil {
			return again(err)
		}
		w.Step("saying what this site holds")
		if view.Applications, err = w.promoter.Settle(ctx, record, apps); err != nil {
			return again(err)
		}
	}
	w.Step("moving site %s over", w.self.Site)
	if err := w.move(ctx, record); err != nil {
		return again(err)
	}
	return w.Print(view)
}

func again(err error) error {
	if exit.IsRefusal(err) {
		return err
	}
	return exit.Hint(exit.OfVault(err), "mend the cause and give the same command again: it goes on")
}

// prepare reads what there is, and refuses what must not be.
func (w *work) prepare(ctx context.Context, name string) error {
	var err error
	if w.c, err = w.Cluster(); err != nil {
		return err
	}
	site, err := access.LocalSite(ctx, w.c)
	if err != nil {
		return err
	}
	w.self.Site, w.domain = site.Name, site.Spec.FailureDomain
	if w.self.Cluster, err = access.ClusterID(ctx, w.c); err != nil {
		return err
	}
	if w.self.Site == promotion.Nobody {
		return exit.Refuse("give this cluster another name first: `davit uninstall`, then `davit install --site`",
			"this site is called %s, which is what a promoted vault calls sites that nobody can ask: nothing could tell this one's proofs from theirs", promotion.Nobody)
	}
	if err := w.find(ctx, name); err != nil {
		return err
	}
	if w.domain != "" && w.domain == w.second.Spec.FailureDomain {
		return exit.Refuse("promote a copy elsewhere, or correct the failure domain of the Vault or the Site",
			"site %s and vault %s are both in failure domain %q: nothing would be captured into it", w.self.Site, name, w.domain)
	}
	if err := w.openCopy(ctx); err != nil {
		return err
	}
	return w.siblings(ctx)
}

// find reads the Vault objects of the copy and of the first vault.
func (w *work) find(ctx context.Context, name string) (err error) {
	if w.second, err = access.ChooseVault(ctx, w.c, name); err != nil {
		return err
	}
	if w.second.Spec.CopyOf == "" {
		return exit.Refuse("`vault ls` says which are", "vault %s is no second copy", name)
	}
	first := &v1alpha1.Vault{}
	err = w.c.Get(ctx, client.ObjectKey{Name: w.second.Spec.CopyOf}, first)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.first = first
	return err
}

// openCopy opens the copy with this site's own key, also where it is the vault already.
func (w *work) openCopy(ctx context.Context) error {
	data, err := w.secret(ctx)
	if err != nil {
		return err
	}
	if w.keyring, err = vault.ParseKeyring(data); err != nil {
		return fmt.Errorf("open vault %s: %w", w.second.Name, err)
	}
	if w.store, err = w.Store(ctx, w.cfg); err != nil {
		return err
	}
	if w.state, err = promotion.Look(ctx, w.store); err != nil {
		return exit.OfVault(fmt.Errorf("look at the copy: %w", err))
	}
	if w.keyring.VaultID != w.state.Of && (!w.state.Begun || w.keyring.VaultID != w.state.Record.ID) {
		return exit.Refuse("remove the Vault and add the copy again", "%s is a copy of vault %s, this site was added to vault %s", w.store, w.state.Of, w.keyring.VaultID)
	}
	if w.first != nil {
		if err := w.replaced(ctx); err != nil {
			return err
		}
	}
	if w.first != nil && !w.state.Done {
		if err := w.lost(ctx); err != nil {
			return err
		}
	}
	project, err := vault.OpenProject(ctx, w.store, w.second.Spec.Project, w.keyring.Identity)
	if errors.Is(err, vault.ErrKey) {
		return exit.Refuse("`vault add "+w.second.Name+" URL --copy-of "+w.second.Spec.CopyOf+" --join --replace --recovery-key-file FILE` admits this site with the recovery key",
			"the copy does not know this site's key: %v", err)
	}
	if err != nil {
		return exit.OfVault(err)
	}
	w.promoter = promotion.New(w.store, project, w.self, "vault promote at site "+w.self.Site, w.Now)
	if w.first != nil && !w.state.Begun {
		w.rotations = max(0, w.first.Status.KeyVersion-project.NewestKey().Number)
	}
	if w.first != nil {
		w.promoter.Lost = w.lost
	}
	return nil
}

// secret reads the copy's Secret; where a call before has removed it, that of
// the first vault, which is the same then.
func (w *work) secret(ctx context.Context) (map[string][]byte, error) {
	cfg, data, err := access.StoreConfig(ctx, w.c, w.second)
	if w.first == nil {
		w.cfg = cfg
		return data, err
	}
	_, now, firstErr := access.StoreConfig(ctx, w.c, w.first)
	if apierrors.IsNotFound(err) && firstErr == nil && w.first.Spec.URL == w.second.Spec.URL {
		cfg, data, err = vaults.Config(w.first, now), now, nil
	}
	if err != nil {
		return nil, err
	}
	w.cfg = cfg
	if firstErr == nil {
		store, err := w.Store(ctx, cfg)
		if err != nil {
			return nil, err
		}
		record, err := promotion.Read(ctx, store)
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return nil, exit.OfVault(err)
		}
		w.moved = err == nil && string(now["vault-id"]) == record.ID
	}
	return data, nil
}

// apps are what this site knows of its applications from the lost vault.
func (w *work) apps(ctx context.Context) ([]promotion.App, error) {
	var all v1alpha1.ApplicationList
	if err := w.c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	var apps []promotion.App
	wanted := map[string]bool{}
	for _, name := range w.asked.goOn {
		wanted[name] = true
	}
	for i := range all.Items {
		a := &all.Items[i]
		if a.Spec.Vault == w.second.Spec.CopyOf {
			leased := a.Status.Lease != nil && !wanted[a.VaultName()]
			delete(wanted, a.VaultName())
			apps = append(apps, promotion.App{Name: a.VaultName(), Seen: max(a.Status.Epoch, a.Status.HeldEpoch), Held: a.Status.HeldEpoch, Leased: leased})
		}
	}
	if unknown := slices.Sorted(maps.Keys(wanted)); len(unknown) > 0 {
		return nil, exit.Refuse("`davit status` names those that there are", "--go-on %s: this site has no such application in vault %s", unknown[0], w.second.Spec.CopyOf)
	}
	return apps, nil
}

// move has the first vault's Vault name the store of the copy, and removes the
// copy's. Each step may be given again; the copy's Vault goes last.
func (w *work) move(ctx context.Context, record promotion.Record) error {
	object := w.object()
	keyring := w.keyring
	keyring.VaultID = record.ID
	if err := w.save(ctx, object, keyring); err != nil {
		return err
	}
	old := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: w.second.Spec.SecretName}}
	if old.Name != object.Spec.SecretName {
		if err := w.c.Delete(ctx, old); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete Secret %s: %w", old.Name, err)
		}
	}
	if err := w.c.Delete(ctx, w.second); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Vault %s: %w", w.second.Name, err)
	}
	return nil
}
