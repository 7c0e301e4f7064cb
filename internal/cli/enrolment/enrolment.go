// Package enrolment is the command line's `enrol`: it gives a cluster's agent the
// way to a console.
package enrolment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent/speaker"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

// Way is what a person gives of the way to a console.
type Way struct {
	URLs      []string
	TokenFile string
	// Documents are what is taken of the console's documents: all, none or namespaces.
	Documents []string
	// Runs says which runs the console may begin: none, drill or all.
	Runs string
	// Restores says what the console may restore: none, clone or all.
	Restores string
}

// Flags adds the flags.
func (w *Way) Flags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&w.URLs, "console", nil, "address of the console, https://HOST:PORT; may be given again for another that takes over")
	flags.StringVar(&w.TokenFile, "enrol-token-file", "", "`file` with the token that davit console enrol made; - is standard input")
	flags.StringSliceVar(&w.Documents, "documents", nil, "which of the console's documents the agent takes: all, none, or those of these namespaces (default: all)")
	flags.StringVar(&w.Restores, "restores", uplink.RestoresNone, "what the console may restore here: none, clone (copies, into new namespaces) or all (also in place)")
	flags.StringVar(&w.Runs, "runs", uplink.RunsNone, "which runs the console may begin here: none, drill or all")
}

// Which documents are taken, besides namespaces.
const (
	all  = "all"
	none = "none"
)

// accepted are the namespaces for which documents are taken.
func (w Way) accepted() ([]string, error) {
	if len(w.Documents) == 0 || slices.Equal(w.Documents, []string{all}) {
		return []string{dial.Everywhere}, nil
	}
	if slices.Equal(w.Documents, []string{none}) {
		return nil, nil
	}
	for _, n := range w.Documents {
		if err := vault.CheckName(n); err != nil || n == all || n == none || strings.Contains(n, ".") {
			return nil, exit.Usage("write all, none, or namespaces: --documents shop,wiki", "--documents: %q is no namespace", n)
		}
	}
	return w.Documents, nil
}

// Given tells whether a way was given at all.
func (w Way) Given() bool {
	return len(w.URLs) > 0 || w.TokenFile != "" || len(w.Documents) > 0 || w.Runs != "" && w.Runs != uplink.RunsNone || w.Restores != "" && w.Restores != uplink.RestoresNone
}

// maxToken bounds what is read for a token.
const maxToken = 4096

// Token checks the way and reads the token.
func (w Way) Token(in io.Reader) (uplink.Token, error) {
	if len(w.URLs) == 0 || w.TokenFile == "" {
		return uplink.Token{}, exit.Usage("`console enrol SITE` at the console makes the token", "--console and --enrol-token-file go together")
	}
	if _, err := w.accepted(); err != nil {
		return uplink.Token{}, err
	}
	if !slices.Contains([]string{"", uplink.RunsNone, uplink.RunsDrill, uplink.RunsAll}, w.Runs) {
		return uplink.Token{}, exit.Usage("write --runs none, drill or all", "--runs: %q is none of them", w.Runs)
	}
	if !slices.Contains([]string{"", uplink.RestoresNone, uplink.RestoresClone, uplink.RestoresAll}, w.Restores) {
		return uplink.Token{}, exit.Usage("write --restores none, clone or all", "--restores: %q is none of them", w.Restores)
	}
	for _, u := range w.URLs {
		if err := dial.CheckURL(u); err != nil {
			return uplink.Token{}, exit.AsUsage(err)
		}
	}
	if w.TokenFile != "-" {
		f, err := os.Open(w.TokenFile)
		if err != nil {
			return uplink.Token{}, exit.AsUsage(fmt.Errorf("read token: %w", err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return uplink.Token{}, fmt.Errorf("read token: %w", err)
	}
	t, err := uplink.ParseToken(string(text))
	if err != nil {
		return t, exit.AsUsage(fmt.Errorf("read token: %w", err))
	}
	return t, nil
}

// Introduce gives the token to the cluster's agent.
func (w Way) Introduce(ctx context.Context, c client.Client, t uplink.Token) error {
	accepted, err := w.accepted()
	if err != nil {
		return err
	}
	return speaker.Introduce(ctx, c, w.URLs, t, speaker.Permits{Documents: accepted, Runs: w.Runs, Restores: w.Restores})
}

// Host is what the command line gives its commands.
type Host struct {
	In      io.Reader
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	Cluster func() (wiring.Cluster, error)
	Print   func(output.Result) error
}

// Command makes `enrol`.
func Command(h Host) *cobra.Command {
	var w Way
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Have this site's agent tell a console how it stands, and take its documents",
		Long: `Gives the agent of this cluster the address of a console and the token that "davit console enrol" made there. The agent calls the
console, gets a certificate, and tells how sites, applications, plans and runs stand, and what happens. It applies the console's
applications, policies and plans that are for this site. Nothing waits for the console. "davit status" says whether it is reached,
and how its documents stand. A new token replaces what was there for its project.

Who may write all documents at the console is an administrator of this cluster: plans and hooks run commands. --documents says which
are taken: all, none, or those of these namespaces, which leaves out plans. On a cluster with vaults of several projects it must be given.

--runs lets people at the console begin runs that come to this site: drills, or also failovers, switchovers and failbacks. Without it they cannot.
--restores lets them restore here, as the account davit-restore: copies into new namespaces, or also in place. They take nothing over.
What was captured at any site of the project can be restored so, cluster-scoped objects included: who may restore there is an administrator of this cluster.`,
		Example: `  davit enrol --console https://console.example.com:8443 --enrol-token-file ./east.token
  davit enrol --console https://console.example.com:8443 --enrol-token-file ./east.token --documents shop,wiki
  davit enrol --console https://console.example.com:8443 --enrol-token-file ./west.token --runs drill`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return exit.Usage("", "enrol takes no arguments, but was given %q", given)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := w.Token(h.In)
			if err != nil {
				return err
			}
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			c, err := h.Cluster()
			if err != nil {
				return err
			}
			if err := known(ctx, c, t.Project, len(w.Documents) > 0); err != nil {
				return err
			}
			if err := w.Introduce(ctx, c, t); err != nil {
				return err
			}
			return h.Print(view.Done(fmt.Sprintf("The agent calls the console for project %s. `davit status` says whether it is reached.", t.Project)))
		},
	}
	w.Flags(cmd.Flags())
	return cmd
}

// known refuses a project that no vault of the cluster has: nothing would be told.
// Beside other projects it takes a word on which documents are taken.
func known(ctx context.Context, c client.Client, project string, said bool) error {
	if _, err := access.LocalSite(ctx, c); err != nil {
		return err
	}
	var vaults v1alpha1.VaultList
	if err := c.List(ctx, &vaults); err != nil {
		return errors.Join(errors.New("list vaults"), err)
	}
	if !slices.ContainsFunc(vaults.Items, func(v v1alpha1.Vault) bool { return v.Spec.Project == project }) {
		return exit.Refuse("`vault add NAME URL --project "+project+"` first", "the token is for project %s, and no vault of this site is of that", project)
	}
	if i := slices.IndexFunc(vaults.Items, func(v v1alpha1.Vault) bool { return v.Spec.Project != project }); i >= 0 && !said {
		return exit.Refuse("say which with --documents: namespaces, none or all",
			"project %s has a vault here too, and whoever writes all documents at the console of project %s could reach what is that project's", vaults.Items[i].Spec.Project, project)
	}
	return nil
}

// Beside refuses the first vault of a project at a site that takes all documents of
// another project's console: they reach every namespace, and nobody who let them in
// could know of this project.
func Beside(ctx context.Context, c client.Client, project string) error {
	open, err := speaker.TakesAll(ctx, c)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(open, func(p string) bool { return p != project })
	if i < 0 {
		return nil
	}
	var vaults v1alpha1.VaultList
	if err := c.List(ctx, &vaults); err != nil {
		return fmt.Errorf("list vaults: %w", err)
	}
	if slices.ContainsFunc(vaults.Items, func(v v1alpha1.Vault) bool { return v.Spec.Project == project }) {
		return nil
	}
	return exit.Refuse("enrol again for project "+open[i]+" with --documents: namespaces, or none. When both vaults are here, --documents all may be said again",
		"the site takes all documents of the console of project %s: whoever writes them could reach what is project %s's", open[i], project)
}
