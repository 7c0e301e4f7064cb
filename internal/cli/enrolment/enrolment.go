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
)

// Way is what a person gives of the way to a console.
type Way struct {
	URLs      []string
	TokenFile string
}

// Flags adds the flags.
func (w *Way) Flags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&w.URLs, "console", nil, "address of the console, https://HOST:PORT; may be given again for another that takes over")
	flags.StringVar(&w.TokenFile, "enrol-token-file", "", "file with the token that `console enrol` made; - is standard input")
}

// Given tells whether a way was given at all.
func (w Way) Given() bool { return len(w.URLs) > 0 || w.TokenFile != "" }

// maxToken bounds what is read for a token.
const maxToken = 4096

// Token checks the way and reads the token.
func (w Way) Token(in io.Reader) (uplink.Token, error) {
	if len(w.URLs) == 0 || w.TokenFile == "" {
		return uplink.Token{}, exit.Usage("`console enrol SITE` at the console makes the token", "--console and --enrol-token-file go together")
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
	return speaker.Introduce(ctx, c, w.URLs, t)
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
		Short: "Have this site's agent tell a console how it stands",
		Long: `Gives the agent of this cluster the address of a console and the token that "davit console enrol" made there. The agent calls the
console, gets a certificate, and tells how sites, applications, plans and runs stand, and what happens. Nothing waits for the
console. "davit status" says whether it is reached. A new token replaces what was there for its project.`,
		Example: `  davit enrol --console https://console.example.com:8443 --enrol-token-file ./east.token`,
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
			if err := known(ctx, c, t.Project); err != nil {
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
func known(ctx context.Context, c client.Client, project string) error {
	if _, err := access.LocalSite(ctx, c); err != nil {
		return err
	}
	var all v1alpha1.VaultList
	if err := c.List(ctx, &all); err != nil {
		return errors.Join(errors.New("list vaults"), err)
	}
	if !slices.ContainsFunc(all.Items, func(v v1alpha1.Vault) bool { return v.Spec.Project == project }) {
		return exit.Refuse("`vault add NAME URL --project "+project+"` first", "the token is for project %s, and no vault of this site is of that", project)
	}
	return nil
}
