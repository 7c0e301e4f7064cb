// Package larder brings images onto the nodes of a cluster before they are needed, and says
// which node has which.
//
// The kubelets pull: a pod on each node names the images, so that the credentials, the
// mirrors and the limits of the node hold as for any other pod. Nothing of an image runs: its
// containers are told to start a program that no image has.
package larder

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/census"
)

const (
	// noProgram begins the name of what the containers are to start: no image has it, and
	// whoever makes images cannot know how it ends.
	noProgram = "/davit-starts-nothing-of-this-image-"
	// perPod is how many images a pod names, and nodesAtOnce how many nodes pull at once:
	// registries are others' too.
	perPod, nodesAtOnce = 20, 8
	look                = 500 * time.Millisecond
	// lasting is how long a Job stays whose owner has died.
	lasting = 10 * time.Minute
)

// Options say what is pulled.
type Options struct {
	// Images as pods name them; see Names.
	Images []string
	// Check looks only: what a node lacks is not pulled.
	Check bool
	// Limit ends the wait for one pod.
	Limit time.Duration
	// Step is told of each node that is begun; nil tells nobody.
	Step func(format string, args ...any)
}

// Node is what one node has.
type Node struct {
	Name string `json:"node"`
	// Closed says why it takes no pods; nothing is known of its images then.
	Closed string  `json:"closed,omitempty"`
	Images []Image `json:"images,omitempty"`
}

// Image is one image at a node.
type Image struct {
	Name    string `json:"image"`
	Present bool   `json:"present"`
	Why     string `json:"why,omitempty"` // it is not there
}

// Missing counts what the node lacks.
func (n Node) Missing() int {
	count := 0
	for _, i := range n.Images {
		if !i.Present {
			count++
		}
	}
	return count
}

// Pull has every open node pull every image, or says which it has. An error says that nothing is
// known; what went wrong at a node is said of its images.
func Pull(ctx context.Context, c client.Client, o Options) ([]Node, error) {
	var list corev1.NodeList
	if err := c.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	secrets, err := pullSecrets(ctx, c)
	if err != nil {
		return nil, err
	}
	nodes := make([]Node, len(list.Items))
	var told sync.Mutex
	var g errgroup.Group
	g.SetLimit(nodesAtOnce)
	for i := range list.Items {
		n := &nodes[i]
		n.Name, n.Closed = list.Items[i].Name, census.Closed(&list.Items[i])
		if n.Closed != "" {
			continue
		}
		g.Go(func() error {
			if o.Step != nil {
				told.Lock()
				o.Step("node %s: %d images", n.Name, len(o.Images))
				told.Unlock()
			}
			for some := range slices.Chunk(o.Images, perPod) {
				n.Images = append(n.Images, onNode(ctx, c, n.Name, some, secrets, o)...)
			}
			return nil
		})
	}
	_ = g.Wait() // the nodes hold what went wrong
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes, nil
}

// pullSecrets are the credentials for registries in Davit's namespace.
func pullSecrets(ctx context.Context, c client.Client) ([]corev1.LocalObjectReference, error) {
	var list corev1.SecretList
	if err := c.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return nil, fmt.Errorf("look for credentials of registries in %s: %w", v1alpha1.SystemNamespace, err)
	}
	var all []corev1.LocalObjectReference
	for _, s := range list.Items {
		if s.Type == corev1.SecretTypeDockerConfigJson {
			all = append(all, corev1.LocalObjectReference{Name: s.Name})
		}
	}
	return all, nil
}

// onNode makes a Job on a node, and waits until its pod says something of each image.
func onNode(ctx context.Context, c client.Client, node string, images []string, secrets []corev1.LocalObjectReference, o Options) []Image {
	job := jobOf(node, images, secrets, o)
	out := make([]Image, len(images))
	for i, name := range images {
		out[i] = Image{Name: name, Why: "its pod was not made: see kubectl -n " + v1alpha1.SystemNamespace + " describe job"}
	}
	if err := c.Create(ctx, job); err != nil {
		for i := range out {
			out[i].Why = fmt.Sprintf("make a Job in %s: %v", v1alpha1.SystemNamespace, err)
		}
		return out
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = c.Delete(ctx, job, client.PropagationPolicy(metav1.DeletePropagationBackground)) // else the site does, in time
	}()
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	for {
		var pods corev1.PodList
		err := c.List(ctx, &pods, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{batchv1.JobNameLabel: job.Name})
		if err == nil && len(pods.Items) > 0 && judge(&pods.Items[0], out) {
			return out
		}
		select {
		case <-ctx.Done():
			return out
		case <-time.After(look):
		}
	}
}

// judge reads what a pod says of its images, and tells whether it has said all.
func judge(pod *corev1.Pod, out []Image) (all bool) {
	all = true
	said := map[string]corev1.ContainerState{}
	for _, s := range pod.Status.ContainerStatuses {
		said[s.Name] = s.State
	}
	for i := range out {
		state, known := said[container(i)]
		switch {
		case known && state.Terminated != nil && state.Terminated.Reason == unknown:
			out[i].Present = false
			out[i].Why = "the node ended the pod before it said of this image: " + cmp.Or(pod.Status.Message, pod.Status.Reason, state.Terminated.Message)
		case known && (state.Terminated != nil || state.Running != nil), known && state.Waiting != nil && began[state.Waiting.Reason]:
			out[i].Present, out[i].Why = true, ""
		case known && state.Waiting != nil && gaveUp(state.Waiting):
			out[i].Present, out[i].Why = false, because(state.Waiting)
		default:
			all = false
			out[i].Why = cmp.Or(pod.Status.Message, "it was still being pulled when the time was over: give it more (--each, --timeout)")
		}
	}
	return all || pod.Status.Phase == corev1.PodFailed && len(said) == 0 // the node refused it
}

// unknown is what a kubelet says of containers that it has not seen, or not made, of a pod that it
// ended: evicted, for one, when the images fill the disk.
const unknown = "ContainerStatusUnknown"

// began are the reasons of containers that wait for something that comes after their image.
var began = map[string]bool{
	"CreateContainerError": true, "CreateContainerConfigError": true, "RunContainerError": true, "StartError": true,
	"PostStartHookError": true, "PreCreateHookError": true, "PreStartHookError": true, "CrashLoopBackOff": true,
}

// gaveUp tells whether a pull failed. The kubelet's own limit is none: it tries again.
func gaveUp(w *corev1.ContainerStateWaiting) bool {
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed", "ErrImagePullForbidden":
		return !strings.Contains(w.Message, "QPS exceeded")
	}
	return false
}

// because is why, in one line of bearable length.
func because(w *corev1.ContainerStateWaiting) string {
	const most = 300
	if w.Reason == "ErrImageNeverPull" {
		return "it is not there"
	}
	text := []rune(strings.Join(strings.Fields(cmp.Or(w.Message, w.Reason)), " "))
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}

func container(i int) string { return fmt.Sprintf("image-%d", i) }

// jobOf names the images in a pod of the node. It asks for next to nothing, and goes by itself when
// whoever made it dies.
func jobOf(node string, images []string, secrets []corev1.LocalObjectReference, o Options) *batchv1.Job {
	policy := corev1.PullIfNotPresent
	if o.Check {
		policy = corev1.PullNever
	}
	labels := map[string]string{v1alpha1.LabelManagedBy: "davit", "davit.dev/pull": "true"}
	spec := corev1.PodSpec{
		NodeName: node, RestartPolicy: corev1.RestartPolicyNever, ImagePullSecrets: secrets,
		AutomountServiceAccountToken: ptr.To(false), EnableServiceLinks: ptr.To(false), TerminationGracePeriodSeconds: ptr.To[int64](0),
	}
	program := noProgram + rand.Text()
	for i, image := range images {
		spec.Containers = append(spec.Containers, corev1.Container{
			Name: container(i), Image: image, ImagePullPolicy: policy, Command: []string{program},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi"),
			}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		})
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "davit-pull-", Namespace: v1alpha1.SystemNamespace, Labels: labels},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](0), TTLSecondsAfterFinished: ptr.To(int32(lasting / time.Second)), ActiveDeadlineSeconds: ptr.To(int64((o.Limit + lasting) / time.Second)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}
}
