// Package wiring is what commands work with: a cluster and the stores of vaults,
// as ports, and the real ones, which it puts together from the adapters.
package wiring

import (
	"context"
	"io"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// Backend opens what commands work with. Real is the real one, the tests have
// theirs.
type Backend interface {
	// Cluster opens the cluster of a kubeconfig; both may be empty.
	Cluster(kubeconfig, context string) (Cluster, error)
	// Store opens a vault's store.
	Store(ctx context.Context, cfg backend.Config) (vault.Store, error)
	// Serve runs one of the long-lived parts: "agent", "node" or "hold".
	Serve(ctx context.Context, part string, args []string) error
}

// Cluster is one Kubernetes cluster, seen with the caller's own rights.
type Cluster interface {
	client.WithWatch
	// ServerVersion is such as "v1.34.1".
	ServerVersion(ctx context.Context) (string, error)
	// User names who the cluster takes the caller for.
	User(ctx context.Context) string
	// PodLogs opens the last lines of a container's log.
	PodLogs(ctx context.Context, pod PodLog) (io.ReadCloser, error)
	// Install puts Davit into the cluster, or upgrades it.
	Install(ctx context.Context, opts install.Options, progress install.Progress) error
	// Uninstall takes it out again.
	Uninstall(ctx context.Context, opts install.UninstallOptions, progress install.Progress) error
	// InstallConsole puts a console into the cluster, or upgrades it.
	InstallConsole(ctx context.Context, opts install.ConsoleOptions, progress install.Progress) error
	// UninstallConsole takes it out again.
	UninstallConsole(ctx context.Context, opts install.ConsoleOptions, progress install.Progress) error
	// CheckDirectory refuses a vault in a directory that Davit's processes in
	// the cluster do not have.
	CheckDirectory(ctx context.Context, dir string) error
	// CheckVolumes says which of its claims an application's captures would fail on.
	CheckVolumes(ctx context.Context, app *v1alpha1.Application, claims []capture.Claim) error
	// Look says what a capture of the application would hold, with objects also
	// which.
	Look(ctx context.Context, app *v1alpha1.Application, objects bool) (*capture.Held, error)
	// Recover brings an application back, or with plan says what it would do.
	Recover(ctx context.Context, opts recovery.Options, how Recovering) (recovery.Report, error)
	// Test brings a point up as an isolated copy, probes it and removes it.
	Test(ctx context.Context, opts trial.Options, how Recovering) (trial.Report, error)
	// Standby is this cluster as the target of runs.
	Standby(how Recovering) (*standby.Site, error)
	// Census is what the site says of itself, seen with the caller's rights.
	Census(ctx context.Context, about census.Options) *preflight.Site
	// Rehearse asks the servers of a plan's records whether they would take this
	// site's updates, and changes nothing.
	Rehearse(ctx context.Context, p *plan.Plan, now func() time.Time) []preflight.Name
	// SweepTests removes copies whose test is over.
	SweepTests(ctx context.Context, now time.Time) ([]string, error)
}

// PodLog says which log to read.
type PodLog struct {
	Namespace, Pod, Container string
	Previous                  bool
	Lines                     int64
}

// Recovering says how a recovery is carried out.
type Recovering struct {
	Project   *vault.Project
	VaultName string
	Site      string
	ClusterID string
	Holder    string
	Plan      bool
	// Check has it only look at what forbids the recovery, which takes no time.
	Check bool
	// Coming says that Davit and its way into the vault are put into the cluster
	// before anything is brought there: that they are missing keeps nothing back.
	Coming bool
	// InsecureRegistries are asked for images without TLS.
	InsecureRegistries []string

	Progress restore.Progress
	Now      func() time.Time
}
