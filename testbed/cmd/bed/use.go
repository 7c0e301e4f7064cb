package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"davit.dev/davit/testbed/build"
	"github.com/spf13/cobra"
)

func cutCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "cut A B",
		Short: "Drop all traffic between two of: a site, vault, host",
		Args:  args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			return b.Cut(c.Context(), a[0], a[1])
		},
	}
}

func healCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "heal [A B]",
		Short: "End the cut between A and B, or all cuts",
		Args: args(func(_ *cobra.Command, a []string) error {
			if len(a) != 0 && len(a) != 2 {
				return fmt.Errorf("name two members or none, not %d", len(a))
			}
			return nil
		}),
		RunE: func(c *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			if len(a) == 0 {
				return b.HealAll(c.Context())
			}
			return b.Heal(c.Context(), a[0], a[1])
		},
	}
}

func logsCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "logs SITE|vault [COMPONENT]",
		Short: "Print a component's log, or the names and paths of all logs",
		Args:  args(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			if len(a) == 2 {
				data, err := os.ReadFile(filepath.Join(b.LogDir(a[0]), filepath.Base(a[1])+".log"))
				if err != nil {
					return fmt.Errorf("read log: %w; 'bed logs %s' lists them", err, a[0])
				}
				_, err = os.Stdout.Write(data)
				return err
			}
			files, err := filepath.Glob(filepath.Join(b.LogDir(a[0]), "*.log"))
			if err != nil {
				return err
			}
			for _, f := range files {
				fmt.Printf("%s\t%s\n", strings.TrimSuffix(filepath.Base(f), ".log"), f)
			}
			return nil
		},
	}
}

func kubeconfigCmd(open opener) *cobra.Command {
	var contents bool
	c := &cobra.Command{
		Use:   "kubeconfig SITE",
		Short: "Print the path of the administrator's kubeconfig",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			s, err := open.site(a[0])
			if err != nil {
				return err
			}
			if !contents {
				fmt.Println(s.Kubeconfig())
				return nil
			}
			data, err := os.ReadFile(s.Kubeconfig())
			if err != nil {
				return fmt.Errorf("read kubeconfig: %w", err)
			}
			_, err = os.Stdout.Write(data)
			return err
		},
	}
	c.Flags().BoolVar(&contents, "contents", false, "print the file instead of its path")
	return c
}

func kubectlCmd(open opener) *cobra.Command {
	c := &cobra.Command{
		Use:   "kubectl SITE ARGUMENTS...",
		Short: "Run kubectl as the site's administrator",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			s, err := open.site(a[0])
			if err != nil {
				return err
			}
			bin, err := build.All(c.Context(), os.Stderr)
			if err != nil {
				return err
			}
			path := bin.Path("kubectl")
			argv := append([]string{path, "--kubeconfig", s.Kubeconfig()}, a[1:]...)
			if err := syscall.Exec(path, argv, os.Environ()); err != nil {
				return fmt.Errorf("run kubectl: %w", err)
			}
			return nil
		},
	}
	// Everything after the site belongs to kubectl.
	c.Flags().SetInterspersed(false)
	return c
}

func execCmd(open opener) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec SITE|vault COMMAND...",
		Short: "Run a command of the host inside a site: in its network, and dying with it",
		Args:  args(cobra.MinimumNArgs(2)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, err := open.existing()
			if err != nil {
				return err
			}
			return b.Become(a[0], a[1:])
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func loadCmd(open opener) *cobra.Command {
	return &cobra.Command{
		Use:   "load SITE IMAGE.tar...",
		Short: "Import image tars into a site; pods use them with imagePullPolicy Never or IfNotPresent",
		Args:  args(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			s, err := open.site(a[0])
			if err != nil {
				return err
			}
			for _, tar := range a[1:] {
				if err := s.LoadImage(c.Context(), tar); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func envCmd(open opener) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "env",
		Short: "Print addresses, paths and credentials as shell assignments: eval \"$(bed env)\"",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := open.existing()
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("%w; run as root", err)
			}
			if err != nil {
				return err
			}
			cache, err := build.CacheDir()
			if err != nil {
				return err
			}
			bin, err := build.All(c.Context(), os.Stderr)
			if err != nil {
				return err
			}
			env := b.Environment(cache, bin.Path("kubectl"))
			if !asJSON {
				fmt.Print(env.Shell())
				return nil
			}
			data, err := env.JSON()
			if err != nil {
				return err
			}
			fmt.Println(string(data))
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
