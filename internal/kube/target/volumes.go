package target

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/hold"
)

// Volumes fills claims through holder pods and node processes.
type Volumes struct {
	mover  *mover.Mover
	system *kube.Clients
	vault  string
	coming bool // what fills claims is put there first
	beside *gatherings
}

var _ restore.Volumes = (*Volumes)(nil)

// NewVolumes makes the port from a mover. system reads the state of the node
// processes; vault is the Vault object's name at the target.
func NewVolumes(m *mover.Mover, system *kube.Clients, vault string) *Volumes {
	return &Volumes{mover: m, system: system, vault: vault, beside: &gatherings{all: map[string]*gathering{}}}
}

// Coming are the same where what fills them is put there before anything is.
func (v *Volumes) Coming() *Volumes {
	w := *v
	w.coming = true
	return &w
}

// Ready says why no claim can be filled here: there is no node process that
// is ready, or the Vault object is missing.
func (v *Volumes) Ready(ctx context.Context) error {
	if v.coming {
		return nil
	}
	if v.vault == "" {
		return errors.New("the node processes here know no vault to read from: run davit vault add --join, and before it davit install where it is missing")
	}
	vaults := v.system.Dynamic.Resource(v1alpha1.GroupVersion.WithResource("vaults"))
	if _, err := vaults.Get(ctx, v.vault, metav1.GetOptions{}); err != nil {
		return fmt.Errorf("get Vault %s, through which the node processes read: %w: run davit vault add", v.vault, err)
	}
	pods, err := v.system.Kubernetes.CoreV1().Pods(v1alpha1.SystemNamespace).List(ctx,
		metav1.ListOptions{LabelSelector: mover.NodeAppLabel + "=" + mover.NodeAppName})
	if err != nil {
		return fmt.Errorf("list davit node processes: %w", err)
	}
	for i := range pods.Items {
		for _, c := range pods.Items[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
	}
	return fmt.Errorf("%w ready at the target: %d pods in %s: run davit install, or see kubectl -n %s get pods",
		mover.ErrNoNodeProcess, len(pods.Items), v1alpha1.SystemNamespace, v1alpha1.SystemNamespace)
}

// Fill writes the volume's data into the claim.
func (v *Volumes) Fill(ctx context.Context, req restore.FillRequest) ([]string, error) {
	scheduling, err := schedulingOf(req)
	if err != nil {
		return nil, err
	}
	var placed func()
	var stay func(context.Context)
	if key := scheduling.Labels[labelBeside]; key != "" {
		var leave func()
		placed, stay, leave = v.beside.enter(key)
		defer leave()
	}
	res, err := v.fill(ctx, mover.Request{
		Placed: placed, Stay: stay,
		Vault: v.vault, Site: req.Volume.Snapshot.Repository, Source: req.Source,
		Namespace: req.Namespace, Claim: req.Claim,
		Scheduling: scheduling, Owner: req.Owner, Still: hold.Still,
		Progress: func(p mover.Progress) {
			if req.Progress != nil {
				req.Progress(p.BytesDone, p.BytesTotal)
			}
		},
	}, req.Volume.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("fill claim %s/%s: %w", req.Namespace, req.Claim, err)
	}
	if req.Fetched != nil {
		req.Fetched(res.Fetched)
	}
	return res.Warnings, nil
}

// fill tells silence from all else: it says nothing about the data.
func (v *Volumes) fill(ctx context.Context, req mover.Request, snap point.Snapshot) (mover.Result, error) {
	res, err := v.mover.Write(ctx, req, snap)
	if errors.Is(err, mover.ErrNoAnswer) || errors.Is(err, mover.ErrNoNodeProcess) {
		err = unanswered{err}
	}
	return res, err
}

// unanswered is an error that is also restore.ErrNoAnswer, and says so already.
type unanswered struct{ error }

func (e unanswered) Is(target error) bool { return target == restore.ErrNoAnswer }
func (e unanswered) Unwrap() error        { return e.error }

// schedulingOf takes the workload's constraints along.
func schedulingOf(req restore.FillRequest) (mover.Scheduling, error) {
	if req.PodSpec == nil {
		return mover.Scheduling{}, nil
	}
	var spec corev1.PodSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(req.PodSpec, &spec); err != nil {
		return mover.Scheduling{}, fmt.Errorf("read pod template that uses claim %s/%s: %w", req.Namespace, req.Claim, err)
	}
	s := mover.SchedulingOf(spec)
	s.NodeName = "" // a captured node is not one of this cluster
	besides(&s, req)
	return s, nil
}
