// Command csi-build makes the image of the bed's storage driver and prints its manifests.
//
// Results go to standard output, progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"davit.dev/davit/testbed/csi/deploy"
	"davit.dev/davit/testbed/csi/internal/build"
)

const usage = `usage:
  csi-build image [--cache DIR]
        build the image unless it is cached; print {"ref", "tar"}
  csi-build manifests [--part crds|driver|all] --kubelet-root DIR --state DIR [--outer-size 40Gi]
                      [--namespace kube-system] [--node NAME] [--image REF]
        print YAML`

var errUsage = errors.New(usage)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "csi-build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "image":
		return image(ctx, args[1:])
	case "manifests":
		return manifests(ctx, args[1:])
	}
	return fmt.Errorf("unknown command %q\n%w", args[0], errUsage)
}

func builder(ctx context.Context, cache string) (build.Builder, error) {
	b := build.Builder{Cache: cache, Progress: os.Stderr}
	var err error
	if b.Cache == "" {
		if b.Cache, err = build.CacheDir(); err != nil {
			return b, err
		}
	}
	b.Source, err = build.SourceDir(ctx)
	return b, err
}

func image(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	cache := flags.String("cache", "", "cache directory")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w\n%w", err, errUsage)
	}
	b, err := builder(ctx, *cache)
	if err != nil {
		return err
	}
	result, err := b.Image(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func manifests(ctx context.Context, args []string) error {
	var p deploy.Params
	flags := flag.NewFlagSet("manifests", flag.ContinueOnError)
	part := flags.String("part", "all", "crds, driver or all")
	outer := flags.String("outer-size", "40Gi", "size of the outer file system")
	flags.StringVar(&p.Image, "image", "", "image reference; default: that of the present sources")
	flags.StringVar(&p.Namespace, "namespace", "kube-system", "namespace")
	flags.StringVar(&p.KubeletRoot, "kubelet-root", "", "the kubelet's root directory")
	flags.StringVar(&p.GroupNode, "group-node", "", "the node whose volumes can be cut in groups")
	flags.StringVar(&p.StateDir, "state", "", "the site's directory for volumes")
	flags.StringVar(&p.NodeName, "node", "", "run on this node only")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w\n%w", err, errUsage)
	}
	b, err := builder(ctx, "")
	if err != nil {
		return err
	}
	if p.OuterBytes, err = parseSize(*outer); err != nil {
		return err
	}
	if p.Image == "" {
		plan, err := b.Plan()
		if err != nil {
			return err
		}
		p.Image = plan.Ref
	}
	return printParts(ctx, b, *part, p)
}

func printParts(ctx context.Context, b build.Builder, part string, p deploy.Params) error {
	if part != "crds" && part != "driver" && part != "all" {
		return fmt.Errorf("unknown part %q\n%w", part, errUsage)
	}
	var out []byte
	if part != "driver" {
		crds, err := b.CRDs(ctx)
		if err != nil {
			return err
		}
		out = append(append(out, crds...), deploy.MetadataCRD()...)
	}
	if part != "crds" {
		driver, err := deploy.Driver(p)
		if err != nil {
			return err
		}
		out = append(out, driver...)
	}
	_, err := os.Stdout.Write(out)
	return err
}

func parseSize(s string) (int64, error) {
	for suffix, unit := range map[string]int64{"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n <= 0 {
				break
			}
			return n * unit, nil
		}
	}
	return 0, fmt.Errorf("parse size %q: write it like 40Gi", s)
}
