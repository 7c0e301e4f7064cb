package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/point"
)

// Errors of volumes, for what a person must do.
var (
	// ErrNoSnapshots says that a volume cannot be cut.
	ErrNoSnapshots = errors.New("volume cannot be snapshotted")
	// ErrSnapshotClass says that no VolumeSnapshotClass, or not one, fits.
	ErrSnapshotClass = errors.New("no snapshot class chosen")
	// ErrNotReady says that a snapshot or its copy was not made in time.
	ErrNotReady = errors.New("not ready in time")
	// ErrNodeLost says that the node is lost which alone has the volume.
	ErrNodeLost = errors.New("the volume's node is lost")
)

const (
	managedBy        = "davit"
	defaultClass     = "snapshot.storage.kubernetes.io/is-default-class"
	defaultCutTime   = 2 * time.Minute
	defaultReadyTime = 30 * time.Minute
	orLive           = "or set volumes.mode to SnapshotOrLive to read it while it is in use (the point is then marked fuzzy)"
	livePath         = "it is neither a CSI volume nor a directory of a node"
	policyDelete     = "Delete"
	storageAPI       = "snapshot.storage.k8s.io"
)

var (
	snapshots = schema.GroupVersionResource{Group: storageAPI, Version: "v1", Resource: "volumesnapshots"}
	contents  = schema.GroupVersionResource{Group: storageAPI, Version: "v1", Resource: "volumesnapshotcontents"}
	classes   = schema.GroupVersionResource{Group: storageAPI, Version: "v1", Resource: "volumesnapshotclasses"}
)

// Reader copies a volume into the vault. *mover.Mover is one.
type Reader interface {
	Read(ctx context.Context, req mover.Request) (mover.Result, error)
}

// VolumeOptions say how volumes are captured. Vault and Site are required.
type VolumeOptions struct {
	// Vault names the Vault object, Site whose repository is written.
	Vault, Site string
	// CutTimeout bounds the time to a cut, default 2m; hooks wait for it.
	CutTimeout time.Duration
	// ReadyTimeout bounds the time until a cut can be read, default 30m.
	ReadyTimeout time.Duration
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
	// Logger; nil means none.
	Logger *slog.Logger
}

// Volumes cuts and reads volumes for capture.
type Volumes struct {
	app    *kube.Clients // reads everything, makes snapshots
	system *kube.Clients // makes scratch objects in davit-system
	reader Reader
	opts   VolumeOptions
	log    *slog.Logger

	mu     sync.Mutex
	listed time.Time // when known was
	known  []corev1.Node
}

var _ capture.Volumes = (*Volumes)(nil)

// NewVolumes works in the applications' namespaces with the rights of app, and
// in davit-system, and on volumes and snapshot contents, with those of system.
// They may be the same.
func NewVolumes(app, system *kube.Clients, reader Reader, opts VolumeOptions) *Volumes {
	if opts.CutTimeout <= 0 {
		opts.CutTimeout = defaultCutTime
	}
	if opts.ReadyTimeout <= 0 {
		opts.ReadyTimeout = defaultReadyTime
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Volumes{app: app, system: system, reader: reader, opts: opts, log: opts.Logger}
}

// Plan implements capture.Volumes.
func (v *Volumes) Plan(ctx context.Context, c capture.Claim, opts capture.VolumeOptions) (capture.VolumePlan, error) {
	plan := capture.VolumePlan{Claim: c, Options: opts}
	pv, err := v.app.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, c.Volume, metav1.GetOptions{})
	if err != nil {
		return plan, fmt.Errorf("get persistent volume: %w", err)
	}
	if pv.Spec.CSI != nil {
		plan.Driver, plan.Handle = pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
	}
	if plan.Node, err = v.only(ctx, pv); err != nil {
		return plan, err
	}
	if err := v.home(ctx, pv); err != nil {
		return plan, err
	}
	plan.Class, err = v.chooseClass(ctx, pv, opts.SnapshotClass)
	if err == nil && c.StorageClass == "" {
		err = fmt.Errorf("%w: the claim names no storage class, so that its snapshot could be made readable by none: move its data to a claim of a storage class of driver %s, %s", ErrNoSnapshots, plan.Driver, orLive)
	}
	if err == nil {
		plan.Method = capture.MethodSnapshot
		return plan, nil
	}
	live := opts.Mode == capture.ModeSnapshotOrLive && (errors.Is(err, ErrNoSnapshots) || errors.Is(err, ErrSnapshotClass))
	if !live {
		return plan, err
	}
	plan.Method = capture.MethodLive
	return plan, nil
}

// chooseClass picks the VolumeSnapshotClass of a volume: the one asked for,
// the driver's default, or its only one.
func (v *Volumes) chooseClass(ctx context.Context, pv *corev1.PersistentVolume, asked string) (string, error) {
	if pv.Spec.CSI == nil {
		return "", fmt.Errorf("%w: volume %s is of no CSI driver: move it to a storage class with snapshots, %s", ErrNoSnapshots, pv.Name, orLive)
	}
	driver := pv.Spec.CSI.Driver
	list, err := v.app.Dynamic.Resource(classes).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("%w: this cluster has no snapshot API: install the CSI snapshot controller and its CRDs, %s", ErrNoSnapshots, orLive)
	}
	if err != nil {
		return "", fmt.Errorf("list snapshot classes: %w", err)
	}
	name, err := pickClass(list.Items, driver, asked)
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", pv.Name, err)
	}
	return name, nil
}

func pickClass(list []unstructured.Unstructured, driver, asked string) (string, error) {
	var ours, defaults []string
	for _, class := range list {
		of, _, _ := unstructured.NestedString(class.Object, "driver")
		if class.GetName() == asked && of != driver {
			return "", fmt.Errorf("%w: VolumeSnapshotClass %s is for driver %s, the volume is of driver %s", ErrSnapshotClass, asked, of, driver)
		}
		if of != driver {
			continue
		}
		ours = append(ours, class.GetName())
		if class.GetAnnotations()[defaultClass] == "true" {
			defaults = append(defaults, class.GetName())
		}
	}
	slices.Sort(ours)
	switch {
	case asked != "" && slices.Contains(ours, asked):
		return asked, nil
	case asked != "":
		return "", fmt.Errorf("%w: VolumeSnapshotClass %s does not exist; for driver %s there are: %s", ErrSnapshotClass, asked, driver, orNone(ours))
	case len(defaults) == 1:
		return defaults[0], nil
	case len(ours) == 1:
		return ours[0], nil
	case len(ours) == 0:
		return "", fmt.Errorf("%w: no VolumeSnapshotClass is for driver %s: create one with driver: %s and deletionPolicy: Delete, %s", ErrNoSnapshots, driver, driver, orLive)
	}
	return "", fmt.Errorf("%w: driver %s has %s: set volumes.snapshotClass to one, or mark one as default with the annotation %s=true", ErrSnapshotClass, driver, strings.Join(ours, ", "), defaultClass)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// name is that of everything made for one claim in one point of one application: points of
// two that share the claim may have one name, and each releases its own.
func name(plan capture.VolumePlan) string {
	sum := sha256.Sum256([]byte(plan.Options.Application + "\x00" + plan.Options.Point + "\x00" + plan.Claim.Key()))
	return "davit-" + hex.EncodeToString(sum[:10])
}

// PointLabel is a point's id as a label's value, which may have 63 bytes.
func PointLabel(id string) string {
	const most = 63
	if len(id) <= most {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func labelsOf(point string) map[string]string {
	return map[string]string{v1alpha1.LabelManagedBy: managedBy, v1alpha1.LabelPoint: PointLabel(point)}
}

// document makes an object of the snapshot API.
func document(kind, namespace, name, point string, spec map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetAPIVersion(storageAPI + "/v1")
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetLabels(labelsOf(point))
	return o
}

// Read implements capture.Volumes.
func (v *Volumes) Read(ctx context.Context, cut capture.Cut, previous *point.Snapshot, progress func(capture.VolumeProgress)) (capture.VolumeRead, error) {
	req := mover.Request{
		Vault: v.opts.Vault, Site: v.opts.Site, Owner: cut.Plan.Options.Point, Previous: previous,
		Source: cut.Plan.Options.Application + "/" + cut.Plan.Claim.Key(),
	}
	if cut.Plan.Method != capture.MethodLive {
		req.Cut = cut.Settled
	}
	if progress != nil {
		req.Progress = func(at mover.Progress) {
			progress(capture.VolumeProgress{BytesDone: at.BytesDone, BytesTotal: at.BytesTotal, FilesDone: at.FilesDone})
		}
	}
	locate := v.scratch
	if cut.Plan.Method == capture.MethodLive {
		locate = v.live
	}
	if err := locate(ctx, cut, &req); err != nil {
		return capture.VolumeRead{}, err
	}
	res, err := v.reader.Read(ctx, req)
	var lied *mover.LiedError
	errors.As(err, &lied)
	req.Scheduling = mover.Scheduling{} // it may be read anywhere now
	if errors.Is(err, mover.ErrElsewhere) && cut.Plan.Method != capture.MethodLive {
		if lied != nil && previous != nil { // the next node must not ask again
			told := previous.Distrusting(lied.Lie)
			req.Previous = &told
		}
		res, err = v.readElsewhere(ctx, cut, req, err)
		errors.As(err, &lied)
	}
	if b := res.Snapshot.Blocks; lied != nil && (b == nil || b.Distrusted == "") { // whatever came of the reading
		res.Snapshot.Blocks = &point.Blocks{Distrusted: lied.Lie, Reason: "the driver's word turned out to be wrong"}
	}
	if err == nil && cut.Plan.Method != capture.MethodLive {
		if err = v.wasMade(ctx, claims(cut)...); err != nil {
			return capture.VolumeRead{}, err
		}
	}
	return capture.VolumeRead{Snapshot: res.Snapshot, Warnings: res.Warnings}, err
}

// claims are those that a cut is read by.
func claims(cut capture.Cut) []string { return []string{cut.Handle, secondClaim(cut.Handle)} }

// wasMade refuses what was read where a scratch claim was given a volume that was there
// before: that is not the cut. Without its claim it is given to no other, so that the
// next capture reads what it should.
func (v *Volumes) wasMade(ctx context.Context, claims ...string) error {
	core := v.system.Kubernetes.CoreV1()
	for _, name := range claims {
		pvc, err := core.PersistentVolumeClaims(v1alpha1.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
		if gone(err) != nil {
			return fmt.Errorf("get scratch claim: %w", err)
		}
		if err != nil || pvc.Spec.VolumeName == "" {
			continue
		}
		pv, err := core.PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
		if gone(err) != nil {
			return fmt.Errorf("get scratch volume: %w", err)
		}
		if err == nil && older(pv, pvc) {
			return fmt.Errorf("%w: volume %s was available, and Kubernetes gave it to claim %s/%s instead of one made of the snapshot: nothing on it was changed, and it is kept; delete it, or reserve it by its claimRef", errNotMade, pv.Name, pvc.Namespace, name)
		}
	}
	return nil
}

// errNotMade says that what was read is not what was cut.
var errNotMade = errors.New("another volume was read than the cut")

// readElsewhere reads a cut again, whose reader's node was lost: nothing may be
// left of the application but that cut. It goes where the storage can be had
// from other nodes; else nothing is worse than before.
func (v *Volumes) readElsewhere(ctx context.Context, cut capture.Cut, req mover.Request, lost error) (mover.Result, error) {
	if err := v.scratchAgain(ctx, cut, &req); err != nil {
		return mover.Result{}, errors.Join(lost, err)
	}
	res, err := v.reader.Read(ctx, req)
	if err != nil {
		return mover.Result{}, fmt.Errorf("%w; and on another node: %w", lost, err)
	}
	res.Warnings = append(res.Warnings, "it was read on another node than at first: "+lost.Error())
	return res, nil
}

// awaitObject waits until done is true of the object. When the context ends
// first the error says what the object itself complains of.
func awaitObject(ctx context.Context, api dynamic.ResourceInterface, name string, done func(*unstructured.Unstructured) bool) (*unstructured.Unstructured, error) {
	var last *unstructured.Unstructured
	for {
		o, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil && done(o):
			return o, nil
		case err == nil:
			last = o
		case ctx.Err() == nil:
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, notReady(ctx, last)
		}
		change(ctx, api, name, last)
	}
}

func notReady(ctx context.Context, o *unstructured.Unstructured) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	complaint := "its controller says nothing: see the log of the driver's snapshotter"
	if o != nil {
		complaint = cmp.Or(errorOf(o), complaint)
	}
	return fmt.Errorf("%w: %s", ErrNotReady, complaint)
}

// relook bounds how long a wait trusts its watch.
const relook = 5 * time.Second

// change returns when the object was changed, or after a few seconds.
func change(ctx context.Context, api dynamic.ResourceInterface, name string, o *unstructured.Unstructured) {
	ctx, cancel := context.WithTimeout(ctx, relook)
	defer cancel()
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: o.GetResourceVersion()})
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return
	}
	defer w.Stop()
	select {
	case <-ctx.Done():
	case <-w.ResultChan():
	}
}
