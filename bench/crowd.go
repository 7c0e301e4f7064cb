package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/demo/stage"
	"davit.dev/davit/testbed/bed"
)

// other is the site that a crowd fails over to.
const other = "west"

const (
	waveSize = 20        // applications that wait for the wave before
	ceiling  = 200 << 20 // bytes: what the executor may have, however many applications there are
)

// member is an application of a crowd: what a wave of small services has, but
// for their pods, of which a node takes 110.
const member = `---
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {who: %[1]s}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: %[1]s}
stringData: {key: %[1]s}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"]}]}
---
apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: %[1]s, namespace: davit-system}
spec: {schedule: {every: 12h}}
---
apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: %[1]s, namespace: davit-system}
spec: {vault: %[2]s, policy: %[1]s, namespaces: [%[1]s]}
`

// crowd fails many applications of one plan over, in waves, from a site that is
// dead, and tells what that takes of memory.
func (b *bench) crowd(ctx context.Context) error {
	if err := b.equip(ctx); err != nil {
		return err
	}
	var names []string
	var manifests strings.Builder
	for i := range b.applications {
		name := b.named(fmt.Sprintf("crowd-%03d", i))
		names = append(names, name)
		fmt.Fprintf(&manifests, member, name, b.bucket)
	}
	b.report.say("making %d applications", len(names))
	if _, err := b.stage.KubectlIn(ctx, site, strings.NewReader(manifests.String()), "apply", "-f", "-"); err != nil {
		return err
	}
	if err := b.captured(ctx, names); err != nil {
		return err
	}
	if err := b.stage.Bed.Kill(ctx, site); err != nil {
		return fmt.Errorf("kill %s: %w", site, err)
	}
	plan := filepath.Join(b.stage.Work, "crowd.yaml")
	if err := os.WriteFile(plan, []byte(waves(names)), 0o600); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	b.report.say("failing over")
	carry, by := b.byCommand, "davit failover"
	if b.carried {
		carry, by = b.byAgent, "the agent, its command killed"
	}
	r, err := carry(ctx, plan)
	if err != nil {
		return err
	}
	there, err := b.stage.Kubectl(ctx, other, "get", "configmaps", "-A", "--field-selector", "metadata.name=settings", "-o", "name")
	if err != nil {
		return err
	}
	if n := len(strings.Fields(there)); n != len(names) {
		return fmt.Errorf("count what came: %d applications of %d", n, len(names))
	}
	what := fmt.Sprintf("failover of %d applications of one plan, waves of %d: %s", len(names), waveSize, by)
	fmt.Fprintf(b.report.out, "| %s | %.0f s | | |\n", what, r.took.Seconds())
	b.report.bytes(what, r.peak, ceiling)
	return nil
}

// byCommand has the command carry the failover to its end.
func (b *bench) byCommand(ctx context.Context, plan string) (ran, error) {
	return b.davitAt(ctx, other, "failover", "-f", plan, "--lost", site, "--yes")
}

// byAgent kills the command once its run has begun, and follows what the agent makes of it. The peak is the agent's,
// from before the run: it also reads along while others carry one.
func (b *bench) byAgent(ctx context.Context, plan string) (r ran, err error) {
	agent, err := b.watchAt(other, "agent")
	if err != nil {
		return r, err
	}
	start := time.Now()
	commanded, kill := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := b.byCommand(commanded, plan)
		ended <- err
	}()
	err = b.reaches(ctx, "its first steps are done", func(s runStatus) bool { return s.Phase == "Running" && s.StepsDone > 0 })
	kill()
	if commanded := <-ended; commanded == nil {
		err = errors.Join(err, errors.New("the command ended before it was killed: nothing was left to carry"))
	}
	if err != nil {
		return r, err
	}
	b.report.say("the command is killed after %s", time.Since(start).Round(time.Second))
	if err := b.reaches(ctx, "it awaits its commit", func(s runStatus) bool { return s.Phase == "AwaitingCommit" }); err != nil {
		return r, err
	}
	r.took = time.Since(start)
	r.peak, err = agent.peak()
	return r, err
}

// runStatus is what the Run of a crowd says.
type runStatus struct {
	Phase, Why, Executor string
	StepsDone            int
}

// reaches waits until the one Run at the target is as wanted, and it is an error if that ends before.
func (b *bench) reaches(ctx context.Context, what string, is func(runStatus) bool) error {
	var last runStatus
	for begun := time.Now(); ; {
		out, err := b.stage.Kubectl(ctx, other, "get", "runs", "-o", "json")
		if err != nil {
			return err
		}
		var list struct{ Items []struct{ Status runStatus } }
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return fmt.Errorf("read runs: %w", err)
		}
		if len(list.Items) > 0 {
			last = list.Items[0].Status
		}
		if is(last) {
			return nil
		}
		if over := last.Phase == "Failed" || last.Phase == "RolledBack" || last.Phase == "Canceled"; over || time.Since(begun) > 30*time.Minute {
			return fmt.Errorf("wait until of the run %s: it is %+v", what, last)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// equip brings the second site up and tells it of the vault.
func (b *bench) equip(ctx context.Context) error {
	if err := b.stage.Bed.Up(ctx, bed.Options{Sites: []string{site, other}, Log: b.stage.Log}); err != nil {
		return fmt.Errorf("bring %s up: %w", other, err)
	}
	if err := b.stage.Up(ctx); err != nil {
		return err
	}
	kubelet := b.stage.Bed.Site(other).KubeletRoot()
	if _, err := b.davitAt(ctx, other, "install", "--site", other, "--image", stage.Image, "--kubelet-root", kubelet, "--replicas", "1"); err != nil {
		return err
	}
	url, err := b.stage.Bucket(b.bucket)
	if err != nil {
		return err
	}
	_, err = b.davitAt(ctx, other, "vault", "add", b.bucket, url, "--join", "--recovery-key-file", filepath.Join(b.stage.Work, b.bucket+".key"))
	return err
}

// captured waits until each application has a recovery point. Other parts of the benchmark have left theirs.
func (b *bench) captured(ctx context.Context, names []string) error {
	want := len(names)
	for begun := time.Now(); ; {
		out, err := b.stage.Kubectl(ctx, site, "-n", "davit-system", "get", "recoverypoints", "-o", "json")
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Spec   struct{ Application string }
				Status struct{ Phase string }
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return fmt.Errorf("read recovery points: %w", err)
		}
		have := map[string]bool{}
		for _, p := range list.Items {
			if p.Status.Phase == "Available" && slices.Contains(names, p.Spec.Application) {
				have[p.Spec.Application] = true
			}
		}
		if len(have) >= want {
			b.report.say("%d applications captured in %s", want, time.Since(begun).Round(time.Second))
			return nil
		}
		if time.Since(begun) > 30*time.Minute {
			return fmt.Errorf("wait for recovery points: %d applications of %d have one", len(have), want)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// waves is a plan of groups that wait for each other.
func waves(names []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: davit.dev/v1alpha1\nkind: RecoveryPlan\nmetadata: {name: crowd}\nspec:\n  sites: [{name: %s}, {name: %s}]\n  fence: {timeout: 5s}\n  groups:\n", site, other)
	for i := 0; i*waveSize < len(names); i++ {
		after := ""
		if i > 0 {
			after = fmt.Sprintf(", after: [wave-%d]", i-1)
		}
		fmt.Fprintf(&b, "    - {name: wave-%d%s}\n", i, after)
	}
	b.WriteString("  applications:\n")
	for i, name := range names {
		fmt.Fprintf(&b, "    - {name: %s, group: wave-%d}\n", name, i/waveSize)
	}
	return b.String()
}
