// Command bed runs Davit's test bed: real Kubernetes clusters and an S3 server on one Linux host.
//
// Output rules: results go to standard output, progress and errors to standard error. Exit code 0 means done,
// 1 failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"davit.dev/davit/testbed/bed"
	"github.com/spf13/cobra"
)

// usageError marks errors of the one who typed the command.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "bed:", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "bed",
		Short: "Run real Kubernetes sites and an S3 vault on this host",
		Long: `bed runs sites (Kubernetes clusters of one node or more) and a vault (an S3 server), each in a network namespace of
this host, and breaks them for real: it kills their processes, takes their links down and parts their networks.

Everything but 'build' and 'env' needs root. State is kept in $DAVIT_BED_STATE/<instance> (default
/var/lib/davit-bed/<instance>), built binaries and images in $DAVIT_CACHE (default ~/.cache/davit).`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	instance := c.PersistentFlags().StringP("instance", "i", bed.DefaultInstance, "which bed; several live side by side")
	open := func() (*bed.Bed, error) { return bed.Open(*instance) }
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	c.AddCommand(upCmd(open), downCmd(open), statusCmd(open), killCmd(open), reviveCmd(open), cutCmd(open), healCmd(open),
		logsCmd(open), kubeconfigCmd(open), kubectlCmd(open), execCmd(open), loadCmd(open), nodeCmd(open), siteCmd(open), buildCmd(), envCmd(open))
	return c
}

type opener func() (*bed.Bed, error)

// existing opens a bed that must be there.
func (open opener) existing() (*bed.Bed, error) {
	b, err := open()
	if err != nil {
		return nil, err
	}
	if !b.Exists() {
		return nil, fmt.Errorf("open bed %s: it is not up; run 'bed up --instance %s'", b.Instance(), b.Instance())
	}
	return b, nil
}

func (open opener) site(name string) (*bed.Site, error) {
	b, err := open.existing()
	if err != nil {
		return nil, err
	}
	s := b.Site(name)
	if s == nil {
		var names []string
		for _, s := range b.Sites() {
			names = append(names, s.Name())
		}
		return nil, fmt.Errorf("find site %q: instance %s has %v", name, b.Instance(), names)
	}
	return s, nil
}

// args wraps a check of arguments so that its failures count as wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usageError{fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
		}
		return nil
	}
}
