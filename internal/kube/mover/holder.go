package mover

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// managedBy is the value of v1alpha1.LabelManagedBy on what the mover makes.
const managedBy = "davit"

// holderUser runs the holder: nobody in particular.
const holderUser = 65532

// ownerLabel makes an owner id fit a label, unchanged where it can.
func ownerLabel(owner string) string {
	if owner != "" && len(validation.IsValidLabelValue(owner)) == 0 {
		return owner
	}
	return digest(owner)
}

// digest is a short name for what the parts identify.
func digest(parts ...string) string { return wide(parts...)[:16] }

// wide is a digest that nobody finds two claims for: who did would have the holder of
// the one removed for that of the other.
func wide(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

func (r Request) labels() map[string]string {
	return map[string]string{
		v1alpha1.LabelManagedBy: managedBy,
		LabelOwner:              ownerLabel(r.Owner),
	}
}

// Holds tells whether a pod is Davit's and does nothing but hold a volume.
func Holds(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.LabelManagedBy] == managedBy && pod.Labels[LabelOwner] != "" && strings.HasPrefix(pod.Name, holderPrefix)
}

const holderPrefix = "davit-hold-"

func (r Request) holderName() string { return holderPrefix + wide(r.Owner, r.Namespace, r.Claim) }

// hold mounts the claim and says where it landed. The mount may still be on its
// way there, if the node's process waits for it.
func (m *Mover) hold(ctx context.Context, req Request) (place, error) {
	bound, err := m.checkClaim(ctx, req)
	if err != nil {
		return place{}, err
	}
	pod, err := m.holderPod(ctx, req)
	if err != nil {
		return place{}, err
	}
	startBy := m.opts.Now().Add(m.opts.StartTimeout)
	ctx, cancel := context.WithTimeout(ctx, m.opts.StartTimeout)
	defer cancel()
	if err := m.createHolder(ctx, req, pod); err != nil {
		return place{}, err
	}
	var at place
	enough := func(pod *corev1.Pod) bool {
		at = m.comingTo(ctx, req, pod)
		return at.coming
	}
	var running *corev1.Pod
	if bound {
		running, err = m.awaitHolder(ctx, req, pod, enough)
	} else {
		running, err = m.awaitBinding(ctx, req, pod, enough)
	}
	if err != nil {
		return place{}, err
	}
	if !at.coming {
		return m.placeOf(ctx, req, running)
	}
	at.startBy = startBy
	return at, nil
}

// checkClaim tells whether the claim has its volume, or refuses it.
func (m *Mover) checkClaim(ctx context.Context, req Request) (bound bool, err error) {
	var pvc corev1.PersistentVolumeClaim
	if err := m.workload.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Claim}, &pvc); err != nil {
		return false, fmt.Errorf("get claim: %w", err)
	}
	if ptr.Deref(pvc.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock {
		return false, ErrBlockMode
	}
	if pvc.Status.Phase == corev1.ClaimLost {
		return false, fmt.Errorf("%w: claim has lost its volume %s", ErrNotMounted, pvc.Spec.VolumeName)
	}
	return pvc.Status.Phase == corev1.ClaimBound, nil
}

// createHolder makes the pod, or takes over the one an earlier run left. A new
// namespace's default service account may not be there yet: that is waited for.
func (m *Mover) createHolder(ctx context.Context, req Request, pod *corev1.Pod) error {
	for {
		err := m.workload.Create(ctx, pod.DeepCopy())
		switch {
		case err == nil:
			return nil
		case apierrors.IsAlreadyExists(err):
			usable, err := m.reuseHolder(ctx, pod)
			if err != nil || usable {
				return err
			}
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "looking up service account"): // not one that may not make pods
			if waitErr := pause(ctx, 250*time.Millisecond); waitErr != nil {
				return fmt.Errorf("create holder pod: %w", err)
			}
		default:
			return fmt.Errorf("create holder pod in %s: %w", req.Namespace, err)
		}
	}
}

// reuseHolder says whether the pod that is there can be used; if not, it is
// gone when reuseHolder returns.
func (m *Mover) reuseHolder(ctx context.Context, pod *corev1.Pod) (bool, error) {
	var old corev1.Pod
	err := m.workload.Get(ctx, client.ObjectKeyFromObject(pod), &old)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("get holder pod: %w", err)
	}
	if old.Labels[v1alpha1.LabelManagedBy] != managedBy || old.Labels[LabelOwner] != pod.Labels[LabelOwner] {
		return false, fmt.Errorf("pod %s/%s is in the way and is not Davit's: remove it", old.Namespace, old.Name)
	}
	finished := old.Status.Phase == corev1.PodFailed || old.Status.Phase == corev1.PodSucceeded
	if old.DeletionTimestamp.IsZero() && !finished && holdsOnly(&old, pod) {
		return true, nil
	}
	if err := m.deleteAndWait(ctx, m.workload, &old); err != nil {
		return false, fmt.Errorf("remove old holder pod: %w", err)
	}
	return false, nil
}

// holdsOnly tells whether the pod that is there does what want would, and
// nothing else with the volume. Labels anyone may write, and a container that
// does more than hold could read or change what is moved. What an admission
// adds beside the volume does no harm.
func holdsOnly(old, want *corev1.Pod) bool {
	data, hold := want.Spec.Volumes[0], want.Spec.Containers[0]
	for _, v := range old.Spec.Volumes {
		switch claim := v.PersistentVolumeClaim; {
		case v.Name == data.Name && (claim == nil || claim.ClaimName != data.PersistentVolumeClaim.ClaimName):
			return false
		case v.Name != data.Name && (claim != nil || v.HostPath != nil):
			return false
		}
	}
	holding := false
	for _, c := range append(slices.Clone(old.Spec.InitContainers), old.Spec.Containers...) {
		mounts := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == data.Name })
		switch {
		case c.Name == hold.Name && c.Image == hold.Image && slices.Equal(c.Args, hold.Args) && len(c.Command) == 0 && mounts:
			holding = true
		case mounts:
			return false
		}
	}
	return holding
}

// placeOf says where the running holder has its volume.
func (m *Mover) placeOf(ctx context.Context, req Request, pod *corev1.Pod) (place, error) {
	var pvc corev1.PersistentVolumeClaim
	if err := m.workload.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Claim}, &pvc); err != nil {
		return place{}, fmt.Errorf("get claim: %w", err)
	}
	var pv corev1.PersistentVolume
	if err := m.system.Get(ctx, client.ObjectKey{Name: pvc.Spec.VolumeName}, &pv); err != nil {
		return place{}, fmt.Errorf("get volume: %w", err)
	}
	at := place{node: pod.Spec.NodeName, volume: pv.Name}
	if pv.Spec.HostPath != nil {
		at.hostPath = pv.Spec.HostPath.Path
		return at, nil
	}
	at.podUID = string(pod.UID)
	return at, nil
}

// image returns what holder pods run.
func (m *Mover) image(ctx context.Context) (string, corev1.PullPolicy, []corev1.LocalObjectReference, error) {
	if m.opts.Image != "" {
		var secrets []corev1.LocalObjectReference
		for _, name := range m.opts.ImagePullSecrets {
			secrets = append(secrets, corev1.LocalObjectReference{Name: name})
		}
		return m.opts.Image, m.opts.ImagePullPolicy, secrets, nil
	}
	var ds appsv1.DaemonSet
	err := m.system.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: NodeAppName}, &ds)
	if apierrors.IsNotFound(err) {
		return "", "", nil, fmt.Errorf("%w: DaemonSet %s/%s is missing: run davit install in this cluster", ErrNoNodeProcess, v1alpha1.SystemNamespace, NodeAppName)
	}
	if err != nil {
		return "", "", nil, fmt.Errorf("get DaemonSet %s: %w", NodeAppName, err)
	}
	if len(ds.Spec.Template.Spec.Containers) == 0 {
		return "", "", nil, errors.New("DaemonSet " + NodeAppName + " has no container")
	}
	spec := ds.Spec.Template.Spec
	return spec.Containers[0].Image, spec.Containers[0].ImagePullPolicy, spec.ImagePullSecrets, nil
}

// holderPod is a pod that any PodSecurity level admits.
func (m *Mover) holderPod(ctx context.Context, req Request) (*corev1.Pod, error) {
	image, policy, secrets, err := m.image(ctx)
	if err != nil {
		return nil, err
	}
	labels := req.labels()
	maps.Copy(labels, req.Scheduling.Labels)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: req.Namespace,
			Name:      req.holderName(),
			Labels:    labels,
			Annotations: map[string]string{
				"sidecar.istio.io/inject": "false",
				"linkerd.io/inject":       "disabled",
			},
		},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: ptr.To[int64](5),
			ImagePullSecrets:              secrets,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				RunAsUser:      ptr.To[int64](holderUser),
				RunAsGroup:     ptr.To[int64](holderUser),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{holderContainer(image, policy)},
			Volumes: []corev1.Volume{{
				Name: "data",
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
					ClaimName: req.Claim,
				}},
			}},
		},
	}
	req.Scheduling.apply(&pod.Spec)
	return pod, nil
}

func holderContainer(image string, policy corev1.PullPolicy) corev1.Container {
	return corev1.Container{
		Name:            "hold",
		Image:           image,
		ImagePullPolicy: policy,
		Args:            []string{"hold"},
		VolumeMounts:    []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("1m"),
				corev1.ResourceMemory: resource.MustParse("16Mi"),
			},
			Limits: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("100m"),
				corev1.ResourceMemory: resource.MustParse("64Mi"),
			},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

func (s Scheduling) apply(spec *corev1.PodSpec) {
	spec.NodeName = s.NodeName
	spec.NodeSelector = s.NodeSelector
	spec.Affinity = s.Affinity
	spec.Tolerations = s.Tolerations
	spec.TopologySpreadConstraints = s.TopologySpreadConstraints
	spec.SchedulerName = s.SchedulerName
	spec.PriorityClassName = s.PriorityClassName
}
