// Package e2e breaks things on real clusters: what a person does wrong, what
// dies in the middle, what a vault does on a bad day. The main job, the loss
// of a whole site, is played as the demo plays it.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/demo/stage"
)

// run tells this run's buckets from those of earlier ones.
var run = time.Now().UTC().Format("0102-150405")

func TestMain(m *testing.M) { os.Exit(perform(m)) }

func perform(m *testing.M) int {
	if os.Getenv("DAVIT_BED") == "" {
		fmt.Println("skipped: set DAVIT_BED=1 to run the tests on real clusters; hack/test bed does")
		return 0
	}
	instance := os.Getenv("DAVIT_TEST_INSTANCE")
	if instance == "" {
		instance = "ci"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := setUp(ctx, instance); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	// They wait for clusters more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	return m.Run()
}

func setUp(ctx context.Context, instance string) (err error) {
	if rig, err = stage.Open(instance, os.Stderr); err != nil {
		return err
	}
	if err := rig.Build(ctx); err != nil {
		return err
	}
	if err := rig.Up(ctx, "shop-db", "shop-app"); err != nil {
		return err
	}
	if err := rig.Bed.HealAll(ctx); err != nil {
		return err
	}
	for _, site := range []string{east, west} {
		if err := forget(ctx, site); err != nil {
			return err
		}
		if err := rig.Renew(ctx, site, "--failure-domain", site); err != nil {
			return err
		}
	}
	return shareVault(ctx)
}

// shareVault adds the vault of all tests that need none of their own.
func shareVault(ctx context.Context) error {
	for _, site := range []string{east, west} {
		if err := rig.Settled(ctx, site); err != nil {
			return err
		}
		var flags []string
		if site == west {
			flags = append(flags, "--join")
		}
		if err := addCommon(ctx, site, flags...); err != nil {
			return err
		}
	}
	return nil
}

// addCommon gives a site the vault of all tests.
func addCommon(ctx context.Context, site string, flags ...string) error {
	address, err := newBucket(commonBucket(), "")
	if err != nil {
		return err
	}
	_, err = rig.Davit(ctx, site, append([]string{"vault", "add", common, address, "--recovery-key-file", commonKey(), "--failure-domain", "store"}, flags...)...)
	return err
}

func commonBucket() string { return "e2e-" + run }

func commonKey() string { return filepath.Join(rig.Work, commonBucket()+".key") }

// forget removes what an earlier run left at a site, which may have been of the
// same tests.
func forget(ctx context.Context, site string) error {
	for _, args := range [][]string{
		{"-n", system, "delete", "applications,protectionpolicies,restores,recoverypoints,leases", "--all", "--ignore-not-found"},
		{"delete", "recoveryplans,runs,vaults", "--all"},
	} {
		if known, err := rig.Kubectl(ctx, site, "get", "crd", "vaults.davit.dev", "--ignore-not-found", "-o", "name"); err != nil || known == "" {
			return err
		}
		if _, err := rig.Kubectl(ctx, site, args...); err != nil {
			return err
		}
	}
	_, err := rig.Kubectl(ctx, site, "delete", "namespaces", "-l", "davit-e2e=true", "--ignore-not-found")
	return err
}

// day is one bad day.
type day struct {
	name string
	test func(*testing.T)
}

// TestTogether runs what has its own application, namespaces and vault, side
// by side.
func TestTogether(t *testing.T) {
	for _, d := range together {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			d.test(t)
		})
	}
}

// TestAlone runs what takes the agent, a node process or a link away from
// everybody, group by group.
func TestAlone(t *testing.T) {
	for _, group := range alone {
		var beside sync.WaitGroup
		for _, lane := range group {
			beside.Go(func() {
				for _, d := range lane {
					t.Run(d.name, d.test)
				}
			})
		}
		beside.Wait()
	}
}
