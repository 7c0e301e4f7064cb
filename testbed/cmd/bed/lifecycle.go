package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"davit.dev/davit/testbed/bed"
	"davit.dev/davit/testbed/build"
	"github.com/spf13/cobra"
)

func upCmd(open opener) *cobra.Command {
	opt := bed.Options{Log: os.Stderr}
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "up",
		Short: "Bring the bed up, or start what is missing of it",
		Long: `up builds what is missing in the cache (eight minutes the first time), starts what does not run, installs the
add-ons (CoreDNS, local-path-provisioner, the CSI driver with snapshots) and returns when all of it is ready.
Killed sites are started again. Named sites are added to those the bed has.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := open()
			if err != nil {
				return err
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			if err := b.Up(ctx, opt); err != nil {
				return upError(ctx, err, timeout)
			}
			fmt.Fprintf(os.Stderr, "bed %s is up (%.1f s)\n", b.Instance(), time.Since(start).Seconds())
			return nil
		},
	}
	f := c.Flags()
	f.StringSliceVar(&opt.Sites, "sites", nil, "sites to have (default: those the bed has, else east,west)")
	f.BoolVar(&opt.Install, "install", false, "install missing Debian packages")
	f.BoolVar(&opt.Bare, "bare", false, "leave out the CSI driver")
	f.DurationVar(&timeout, "timeout", time.Hour, "give up after this time, builds included")
	return c
}

// upError names the time limit where it is what ended the work: a build that
// it kills says no more than "signal: killed".
func upError(ctx context.Context, err error, limit time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("not up after %s: %w; what was built is kept: run it again, or give it more with --timeout", limit, err)
	}
	return err
}

func downCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove the bed: processes, mounts, loop devices, namespaces, links, rules and data",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := open()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
			defer cancel()
			return b.Down(ctx)
		},
	}
}

func statusCmd(open opener) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what runs; exits 1 unless everything is ready",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			list := b.Status(c.Context())
			if asJSON {
				err = json.NewEncoder(os.Stdout).Encode(list)
			} else {
				err = printStatus(list)
			}
			if err != nil {
				return err
			}
			for _, st := range list {
				if !st.Ready {
					return fmt.Errorf("check %s: not ready %s; 'bed up' starts what is missing", st.Name, st.Problem)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printStatus(list []bed.MemberStatus) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tLINK\tREADY\tPROCESSES\tSTOPPED\tKUBECONFIG")
	for _, st := range list {
		link := map[bool]string{true: "up", false: "down"}[st.LinkUp]
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%d\t%s\t%s\n", st.Name, st.Address, link, st.Ready, st.Processes, strings.Join(st.Stopped, ","), st.Kubeconfig)
	}
	return w.Flush()
}

func killCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "kill SITE|vault",
		Short: "Take a site down the hard way: link down, then SIGKILL for all processes, containers included",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			return b.Kill(c.Context(), a[0])
		},
	}
}

func reviveCmd(open opener) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "revive SITE|vault",
		Short: "Start a killed site again with the data it had; returns when its node is Ready",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return b.Revive(ctx, a[0])
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 3*time.Minute, "give up after this time")
	return c
}

func nodeCmd(open opener) *cobra.Command {
	var opt bed.NodeOptions
	add := &cobra.Command{
		Use:   "add SITE",
		Short: "Start one more node and print its name; returns when it is Ready",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			s, err := open.site(a[0])
			if err != nil {
				return err
			}
			name, err := s.AddNode(c.Context(), opt)
			if err != nil {
				return err
			}
			fmt.Println(name)
			return nil
		},
	}
	add.Flags().StringVar(&opt.Taint, "taint", "", "a taint that the node bears, as key=value:Effect")
	c := &cobra.Command{
		Use:   "node",
		Short: "Give a site one more node, or take it away again",
		Long: `node gives a site nodes beside its first one, which runs the control plane. A node has its own kubelet,
containerd, network, mounts and storage, and the images of the site. kill, revive, cut, exec and logs take its name;
what is done to the site is done to all of its nodes.`,
	}
	c.AddCommand(add, &cobra.Command{
		Use:   "remove SITE NODE",
		Short: "Take a node away that was added: its processes, its objects in the cluster, its data",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			s, err := open.site(a[0])
			if err != nil {
				return err
			}
			return s.RemoveNode(c.Context(), a[1])
		},
	})
	return c
}

func siteCmd(open opener) *cobra.Command {
	var timeout time.Duration
	add := &cobra.Command{
		Use:   "add SITE",
		Short: "Start one more site; returns when its node is Ready and its add-ons run",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return upError(ctx, b.AddSite(ctx, a[0], os.Stderr), timeout)
		},
	}
	add.Flags().DurationVar(&timeout, "timeout", time.Hour, "give up after this time, builds included")
	c := &cobra.Command{
		Use:   "site",
		Short: "Give the bed one more site, or take one away again",
		Long: `site gives a bed that is up sites beside those that it has, and leaves those alone: 'bed up --sites' would start what is
dead of them.`,
	}
	c.AddCommand(add, &cobra.Command{
		Use:   "remove SITE",
		Short: "Take a site away: its processes, its network, its data, its cuts",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			return b.RemoveSite(c.Context(), a[0])
		},
	})
	return c
}

func buildCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the binaries that are missing in the cache, and nothing else",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := build.All(c.Context(), os.Stderr)
			return err
		},
	}
}
