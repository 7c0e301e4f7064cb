// Package tenapps recovers popular applications, ten in the end, on another cluster, none of which Davit knows anything about:
// deploy at east, load data through the application's own client, back up while it runs, take over at west, read
// everything back.
package tenapps

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/demo/stage"
	"davit.dev/davit/testbed/apps"
)

const (
	east   = "east"
	west   = "west"
	system = "davit-system"
	vault  = "tenapps"
)

// rig is the stage that all tests share; TestMain sets it.
var rig *stage.Stage

// run tells this run's bucket from those of earlier ones.
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
	// A few at a time: two cores carry about three at once.
	flag.Parse()
	if err := flag.Set("test.parallel", "3"); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // images are built from Debian once
	defer cancel()
	if err := setUp(ctx, instance); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		return 1
	}
	code := m.Run()
	results.print(os.Stdout)
	return code
}

// usual are those that every run of the tests recovers: each brings back something the others do not. The soak
// recovers all.
const usual = "lighthouse,postgres,redis"

// chosen are the applications of this run: those that $DAVIT_APPS names, with commas between, or all.
func chosen() []apps.App {
	names := os.Getenv("DAVIT_APPS")
	switch names {
	case "all":
		return apps.All()
	case "":
		names = usual
	}
	var some []apps.App
	for _, a := range apps.All() {
		if slices.Contains(strings.Split(names, ","), a.Name) {
			some = append(some, a)
		}
	}
	return some
}

func setUp(ctx context.Context, instance string) (err error) {
	if rig, err = stage.Open(instance, os.Stderr); err != nil {
		return err
	}
	if err := rig.Build(ctx); err != nil {
		return err
	}
	var images []string
	for _, a := range chosen() {
		images = append(images, a.Images...)
	}
	slices.Sort(images)
	if err := rig.Up(ctx, slices.Compact(images)...); err != nil {
		return err
	}
	for _, site := range []string{east, west} {
		if err := forget(ctx, site); err != nil {
			return err
		}
		if err := rig.Renew(ctx, site); err != nil {
			return err
		}
	}
	return shareVault(ctx)
}

// forget removes what an earlier run left at a site.
func forget(ctx context.Context, site string) error {
	for _, a := range apps.All() {
		if err := a.Remove(ctx, place(site, a)); err != nil {
			return err
		}
	}
	if known, err := rig.Kubectl(ctx, site, "get", "crd", "vaults.davit.dev", "--ignore-not-found", "-o", "name"); err != nil || known == "" {
		return err
	}
	if _, err := rig.Kubectl(ctx, site, "-n", system, "delete", "applications,protectionpolicies,restores,recoverypoints", "--all"); err != nil {
		return err
	}
	_, err := rig.Kubectl(ctx, site, "delete", "vaults", "--all")
	return err
}

// shareVault gives both sites the vault.
func shareVault(ctx context.Context) error {
	bucket := "tenapps-" + run
	address, err := rig.Bucket(bucket)
	if err != nil {
		return err
	}
	for _, site := range []string{east, west} {
		if err := rig.Settled(ctx, site); err != nil {
			return err
		}
		args := []string{"vault", "add", vault, address, "--recovery-key-file", filepath.Join(rig.Work, bucket+".key")}
		if site == west {
			args = append(args, "--join")
		}
		if _, err := rig.Davit(ctx, site, args...); err != nil {
			return err
		}
	}
	return nil
}

// place is where an application runs at a site.
func place(site string, a apps.App) apps.Place {
	return apps.Place{
		Namespace: "app-" + a.Name, Images: rig.Images,
		Kubectl: func(ctx context.Context, stdin string, args ...string) (string, error) {
			return rig.KubectlIn(ctx, site, strings.NewReader(stdin), args...)
		},
	}
}
