// Package mover moves the data of one volume into the vault or back. It mounts
// the claim with a holder pod, which does nothing, and orders the node process
// of the node where the pod landed, by a VolumeTask, to do the work: the
// vault's keys never enter a user's namespace. All names are derived from the
// owner and the claim, so that a caller that was killed finds its own holder
// and task again.
package mover

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// LabelOwner carries the id of the run that a holder pod or task belongs to.
const LabelOwner = "davit.dev/owner"

// NodeAppLabel and NodeAppName mark the pods of the node process.
const (
	NodeAppLabel = "app.kubernetes.io/name"
	NodeAppName  = "davit-node"
)

// AwaitsMounts is an annotation, of the value "true". A node process's pod has it
// that waits for a mount which is to come; a task has it whose mount is.
const AwaitsMounts = "davit.dev/awaits-mounts"

// Errors that callers may decide on with errors.Is.
var (
	// ErrNoNodeProcess says that nothing on the volume's node can do the work.
	ErrNoNodeProcess = errors.New("no davit node process")
	// ErrNotMounted says that the holder pod did not come to run in time; the
	// error's text says why.
	ErrNotMounted = errors.New("volume not mounted")
	// ErrTaskFailed says that the node process reported a failure.
	ErrTaskFailed = errors.New("volume task failed")
	// ErrNoAnswer comes with one of the others where nothing is known of the
	// data: the vault gave the node no answer, or the node itself gave none.
	ErrNoAnswer = errors.New("no answer of the vault or the node")
	// ErrElsewhere comes with one of the others where the volume's node is lost
	// and another could do the work, if it could have the data.
	ErrElsewhere = errors.New("its node is lost, others are not")
	// ErrBlockMode says that the claim is a raw block device.
	ErrBlockMode = errors.New("raw block volumes cannot be moved yet")
)

// Request is one volume's work. There are three ways to name the volume:
// Namespace and Claim, and a holder pod mounts it; Node, PodUID and
// PersistentVolume, and a pod that has it mounted already is used; Node and
// HostPath, for a volume that is a directory of the node.
type Request struct {
	// Vault names the Vault object.
	Vault string
	// Site names the volume repository: this site for Read; Write uses the
	// snapshot's when it is empty.
	Site string
	// Source labels the data across points: application/namespace/claim.
	Source string
	// Namespace and Claim name the PersistentVolumeClaim to mount.
	Namespace, Claim string
	// Node, HostPath, PodUID and PersistentVolume place the volume without a
	// holder pod.
	Node, HostPath, PodUID, PersistentVolume string
	// Live says that the volume is written while it is read.
	Live bool
	// Cut is the instant at which the volume was cut, or an earlier one if only what
	// was written before that is certainly in it. Zero means unknown: more is read
	// again by the next Read.
	Cut time.Time
	// Previous is the newest snapshot of the same source, if any.
	Previous *point.Snapshot
	// Blocks has the node ask the driver which blocks were changed since; nil: not.
	Blocks *v1alpha1.VolumeBlocks
	// Scheduling is what the holder pod needs to land where the workload will.
	Scheduling Scheduling
	// Placed is called when the holder pod runs on its node.
	Placed func()
	// Stay is called when the work is done and before the holder goes, and may
	// keep it.
	Stay func(context.Context)
	// Still is asked before what writes begins: its error says that the volume is another's to
	// fill by now. Nil: nobody else fills it.
	Still func(context.Context) error
	// Owner is the id of the run: the same after a crash, different for others.
	Owner string
	// Progress is told how far the node has come, from one goroutine.
	Progress func(Progress)
}

// Scheduling holds the constraints of the workload that will use the volume.
// Under WaitForFirstConsumer they decide where the volume is made.
type Scheduling struct {
	NodeName                  string
	NodeSelector              map[string]string
	Affinity                  *corev1.Affinity
	Tolerations               []corev1.Toleration
	TopologySpreadConstraints []corev1.TopologySpreadConstraint
	SchedulerName             string
	PriorityClassName         string
	// Labels are what the constraints above mean, where they mean other holders.
	// A Service's selector must not match the holder, so the workload's own
	// labels are not among them.
	Labels map[string]string
}

// SchedulingOf takes the constraints out of a pod template's spec.
func SchedulingOf(spec corev1.PodSpec) Scheduling {
	return Scheduling{
		NodeName:                  spec.NodeName,
		NodeSelector:              spec.NodeSelector,
		Affinity:                  spec.Affinity,
		Tolerations:               spec.Tolerations,
		TopologySpreadConstraints: spec.TopologySpreadConstraints,
		SchedulerName:             spec.SchedulerName,
		PriorityClassName:         spec.PriorityClassName,
	}
}

// Progress is how far a task has come. BytesTotal is 0 while unknown.
type Progress struct {
	BytesDone, BytesTotal, FilesDone int64
}

// Result is what a finished task reported. Write returns the snapshot it wrote.
type Result struct {
	Snapshot point.Snapshot
	Warnings []string
	Fetched  int64 // bytes that a Write got out of the vault; the rest was there
}

// Options say how the mover works. The zero value is usable.
type Options struct {
	// Image of the holder pods. Empty means that of the node DaemonSet, with
	// its pull policy and pull secrets.
	Image           string
	ImagePullPolicy corev1.PullPolicy
	// ImagePullSecrets name Secrets in the claims' namespaces.
	ImagePullSecrets []string
	// StartTimeout bounds the wait for a holder pod to run; default 3m. Work begins
	// as soon as its volume is mounted.
	StartTimeout time.Duration
	// NodeGrace is how long a node process may be not ready, as when it is
	// restarted; default 20s.
	NodeGrace time.Duration
	// SilenceTimeout is how long a task may show no heartbeat; default 2m.
	SilenceTimeout time.Duration
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
}

// Mover moves volumes. It is safe for use by several goroutines.
type Mover struct {
	system   client.WithWatch
	workload client.WithWatch
	opts     Options
}

// New makes a Mover. system reads and writes VolumeTasks and reads nodes'
// state with Davit's own rights; workload makes holder pods with the rights of
// whoever asked, and may be the same client.
func New(system, workload client.WithWatch, opts Options) *Mover {
	if opts.StartTimeout == 0 {
		opts.StartTimeout = 3 * time.Minute
	}
	if opts.NodeGrace == 0 {
		opts.NodeGrace = 20 * time.Second
	}
	if opts.SilenceTimeout == 0 {
		opts.SilenceTimeout = 2 * time.Minute
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Mover{system: system, workload: workload, opts: opts}
}

// NewForConfig makes a Mover from client configurations; a nil workload means
// system's.
func NewForConfig(system, workload *rest.Config, opts Options) (*Mover, error) {
	s, err := newClient(system)
	if err != nil {
		return nil, err
	}
	if workload == nil || workload == system {
		return New(s, s, opts), nil
	}
	w, err := newClient(workload)
	if err != nil {
		return nil, err
	}
	return New(s, w, opts), nil
}

func newClient(config *rest.Config) (client.WithWatch, error) {
	c, err := client.NewWithWatch(config, client.Options{Scheme: Scheme()})
	if err != nil {
		return nil, fmt.Errorf("make client of volume mover: %w", err)
	}
	return c, nil
}

// Scheme knows the kinds that the mover uses.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil { // kinds compiled in always register
			panic(err)
		}
	}
	return s
}

// Read stores the volume in the vault and returns its snapshot. What it made
// in the cluster is gone when it returns, or going: a holder pod whose node was
// lost meanwhile takes nothing away from what was read before.
func (m *Mover) Read(ctx context.Context, req Request) (Result, error) {
	res, err := m.move(ctx, req, v1alpha1.VolumeRead, req.Previous)
	if err != nil {
		return Result{}, fmt.Errorf("read volume %s: %w", req.name(), err)
	}
	return res, nil
}

// Write fills the volume from the snapshot. Called again after an error or a
// crash, with the same request, it continues.
func (m *Mover) Write(ctx context.Context, req Request, snap point.Snapshot) (Result, error) {
	if req.Site == "" {
		req.Site = snap.Repository
	}
	res, err := m.move(ctx, req, v1alpha1.VolumeWrite, &snap)
	if err != nil {
		return Result{}, fmt.Errorf("write volume %s: %w", req.name(), err)
	}
	res.Snapshot = snap
	return res, nil
}

// place is where the node process finds the volume.
type place struct {
	node, podUID, volume, hostPath string

	coming  bool      // the holder does not run yet: the node waits for the mount
	startBy time.Time // until when the holder must run, if it does not
}

func (m *Mover) move(ctx context.Context, req Request, op v1alpha1.VolumeOperation, snap *point.Snapshot) (_ Result, err error) {
	if err := req.check(); err != nil {
		return Result{}, err
	}
	if op == v1alpha1.VolumeWrite { // what reads does no harm, and is swept
		if err := m.takeOver(ctx, req, op); err != nil {
			return Result{}, err
		}
	}
	at := place{node: req.Node, podUID: req.PodUID, volume: req.PersistentVolume, hostPath: req.HostPath}
	if req.needsHolder() {
		defer func() { err = errors.Join(err, m.letGo(ctx, req, op, err)) }()
		if at, err = m.hold(ctx, req); err != nil {
			return Result{}, err
		}
		if req.Placed != nil {
			req.Placed()
		}
		if req.Stay != nil {
			defer req.Stay(ctx)
		}
	}
	if err := m.nodeReady(ctx, at.node); err != nil {
		return Result{}, err
	}
	if at.coming {
		return m.runWhileStarting(ctx, req, op, snap, at)
	}
	return m.runTask(ctx, req, op, snap, at)
}

func (r Request) needsHolder() bool { return r.HostPath == "" && r.PodUID == "" }

func (r Request) name() string {
	if r.Claim != "" {
		return r.Namespace + "/" + r.Claim
	}
	return r.Source
}

func (r Request) check() error {
	switch {
	case r.Vault == "" || r.Site == "" || r.Owner == "":
		return errors.New("request names no vault, site or owner")
	case r.needsHolder() && (r.Namespace == "" || r.Claim == ""):
		return errors.New("request names no claim, mounted volume or host path")
	case !r.needsHolder() && r.Node == "":
		return errors.New("request names no node")
	case r.HostPath == "" && r.PodUID != "" && r.PersistentVolume == "":
		return errors.New("request names a pod but no persistent volume")
	}
	return nil
}
