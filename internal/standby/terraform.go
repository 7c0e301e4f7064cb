package standby

import (
	"context"
	_ "embed"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

// terraformScript is what the Job of a terraform step runs.
//
//go:embed terraform.sh
var terraformScript string

const (
	// spoken begins what a Job of Davit's own says to Davit.
	spoken = "davit: "
	// longestGrace is the most that a terraform is given to let go of its lock.
	longestGrace = time.Minute

	workVolume, workPath     = "davit-work", "/davit/work"
	configVolume, configPath = "davit-config", "/davit/config"
)

// infrastructure makes what applications need around them, by the form that the step
// has.
func (s *Site) infrastructure(ctx context.Context, o execute.Order) execute.Answer {
	switch {
	case o.Step.Terraform != nil:
		return s.terraform(ctx, o)
	case o.Step.ClusterAPI != nil && s.o.Machines == nil:
		return execute.Refuse("this davit reaches no management cluster")
	case o.Step.ClusterAPI != nil:
		return s.o.Machines.Do(ctx, o)
	}
	return s.command(ctx, o)
}

// terraform runs the Job of a terraform step. A drill plans only.
func (s *Site) terraform(ctx context.Context, o execute.Order) execute.Answer {
	t, what := o.Step.Terraform, "apply"
	drill := o.Sandbox != "" || o.Verb == plan.Drill
	switch {
	case o.Action == failover.Undo && (drill || !t.Destroy):
		return execute.Done("what was made is kept")
	case o.Action == failover.Undo:
		what = "destroy"
	case drill:
		what = "plan"
	}
	if o.Action != failover.Look {
		if lacks := s.lacks(ctx, t); lacks != "" {
			return execute.Refuse("there is no %s in %s: make it, and retry the step", lacks, v1alpha1.SystemNamespace)
		}
	}
	answer := s.runs(ctx, o, terraformCommand(t, what), func(u *unstructured.Unstructured) { asTerraform(u, t, o.Step.Timeout) })
	if answer.Outcome == failover.Done && answer.Guard != "" {
		answer.Guard = execute.Unfenced // its state knows of no epoch
	}
	return answer
}

// lacks is what the Job would wait for until its time is over; empty: nothing that is
// known.
func (s *Site) lacks(ctx context.Context, t *plan.Terraform) string {
	absent := func(kind schema.GroupKind, name string) bool {
		at, err := serving(ctx, s.o.Recovery.Cluster, kind)
		if err != nil || name == "" {
			return false
		}
		_, err = s.o.Recovery.Cluster.Get(ctx, at, v1alpha1.SystemNamespace, name)
		return apierrors.IsNotFound(err)
	}
	if absent(shape.KindConfigMap, t.ConfigMap) {
		return "ConfigMap " + t.ConfigMap
	}
	for _, name := range append([]string{t.Secret}, t.Secrets...) {
		if absent(shape.KindSecret, name) {
			return "Secret " + name
		}
	}
	return ""
}

// terraformCommand is the Job's command, as far as it is one.
func terraformCommand(t *plan.Terraform, what string) *plan.Command {
	env := maps.Clone(t.Env)
	if env == nil {
		env = map[string]string{}
	}
	for name, value := range t.Variables {
		env["TF_VAR_"+name] = value
	}
	maps.Copy(env, map[string]string{
		"TF_IN_AUTOMATION": "davit", "TF_INPUT": "0", "TF_DATA_DIR": workPath + "/.terraform",
		"DAVIT_TF": t.Runs(), "DAVIT_TF_WHAT": what, "DAVIT_TF_WORK": workPath, "DAVIT_TF_PATIENCE": t.Patience().String(),
		"DAVIT_TF_MODULE": t.Module, "DAVIT_TF_DIRECTORY": t.Directory, "DAVIT_TF_WORKSPACE": t.Workspace,
	})
	if t.ConfigMap+t.Secret != "" {
		env["DAVIT_TF_CONFIG"] = configPath
	}
	var args []string
	for _, key := range slices.Sorted(maps.Keys(t.Backend)) {
		args = append(args, "-backend-config="+key+"="+t.Backend[key])
	}
	return &plan.Command{Image: t.Image, Args: args, Env: env, Secrets: t.Secrets}
}

// asTerraform makes a step's Job that of a terraform: it runs the script, has room to
// work in and its configuration, and is asked to end so early that it has let go of
// its lock when the step's time is over.
func asTerraform(u *unstructured.Unstructured, t *plan.Terraform, limit time.Duration) {
	grace := min(max(limit/4, errand.Grace), longestGrace)
	spec := shape.Child(u.Object, "spec")
	spec["activeDeadlineSeconds"] = errand.Seconds(limit - grace)
	pod := shape.Child(spec, "template", "spec")
	pod["terminationGracePeriodSeconds"] = errand.Seconds(grace)
	volumes := []any{map[string]any{"name": workVolume, "emptyDir": map[string]any{}}}
	mounts := []any{map[string]any{"name": workVolume, "mountPath": workPath}}
	// What is local to a configuration may run its files.
	const mode = int64(0o555)
	switch {
	case t.ConfigMap != "":
		volumes = append(volumes, map[string]any{"name": configVolume, "configMap": map[string]any{"name": t.ConfigMap, "defaultMode": mode}})
	case t.Secret != "":
		volumes = append(volumes, map[string]any{"name": configVolume, "secret": map[string]any{"secretName": t.Secret, "defaultMode": mode}})
	}
	if len(volumes) > 1 {
		mounts = append(mounts, map[string]any{"name": configVolume, "mountPath": configPath, "readOnly": true})
	}
	pod["volumes"] = volumes
	container := pod["containers"].([]any)[0].(map[string]any) // New made it
	container["command"] = []any{"/bin/sh", "-c", strings.TrimSpace(terraformScript), "davit"}
	container["volumeMounts"] = mounts
}
