package larder

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// kubelets is a cluster whose pods are at once as a kubelet leaves them: say tells of a node's image.
func kubelets(t *testing.T, say func(node, image string, policy corev1.PullPolicy) corev1.ContainerState, objects ...client.Object) (client.Client, *[]batchv1.Job) {
	t.Helper()
	var mu sync.Mutex // nodes are asked side by side
	var made []batchv1.Job
	objects = append(objects,
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.NodeSpec{Unschedulable: true}})
	c := fake.NewClientBuilder().WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := c.Create(ctx, o, opts...); err != nil {
				return err
			}
			job, is := o.(*batchv1.Job)
			if !is {
				return nil
			}
			mu.Lock()
			made = append(made, *job)
			mu.Unlock()
			spec := job.Spec.Template.Spec
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name, Labels: map[string]string{batchv1.JobNameLabel: job.Name}}, Spec: spec}
			for _, x := range spec.Containers {
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: x.Name, State: say(spec.NodeName, x.Image, x.ImagePullPolicy)})
			}
			return c.Create(ctx, pod)
		},
	}).Build()
	return c, &made
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// started is a container whose program is not there, as containerd leaves it.
func started() corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "StartError", ExitCode: 128}}
}

func TestNodesPull(t *testing.T) {
	say := func(node, image string, policy corev1.PullPolicy) corev1.ContainerState {
		switch {
		case policy == corev1.PullNever && image == "r/two":
			return waiting("ErrImageNeverPull", "container image is not present with pull policy of Never")
		case node == "b" && image == "r/one":
			return waiting("ImagePullBackOff", "no\nsuch  host")
		case node == "b":
			return waiting("CreateContainerError", "executable not found") // as CRI-O leaves it
		}
		return started()
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: "keys"}, Type: corev1.SecretTypeDockerConfigJson}
	c, made := kubelets(t, say, secret, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: "other"}})
	nodes, err := Pull(t.Context(), c, Options{Images: []string{"r/one", "r/two"}, Limit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 3 || nodes[2].Closed != "cordoned" || nodes[0].Missing() != 0 || nodes[1].Missing() != 1 || nodes[1].Images[0].Why != "no such host" || !nodes[1].Images[1].Present {
		t.Errorf("%+v", nodes)
	}
	programs := map[string]bool{} // which nobody can guess
	for _, j := range *made {
		spec := j.Spec.Template.Spec
		if len(spec.ImagePullSecrets) != 1 || spec.ImagePullSecrets[0].Name != "keys" || *spec.AutomountServiceAccountToken || !strings.HasPrefix(spec.Containers[0].Command[0], noProgram) || programs[spec.Containers[0].Command[0]] {
			t.Errorf("%+v", spec)
		}
		programs[spec.Containers[0].Command[0]] = true
	}
	var left batchv1.JobList
	if err := c.List(t.Context(), &left); err != nil || len(left.Items) != 0 {
		t.Errorf("%d Jobs are left, %v", len(left.Items), err)
	}
	looked, err := Pull(t.Context(), c, Options{Images: []string{"r/one", "r/two"}, Check: true, Limit: time.Minute})
	if err != nil || looked[0].Missing() != 1 || looked[0].Images[1].Why != "it is not there" {
		t.Errorf("a look: %+v, %v", looked, err)
	}
}

// TestWhatIsNotSettled: what is still pulled, and what the kubelet puts off by itself, is
// waited for; in the end it is called missing.
func TestWhatIsNotSettled(t *testing.T) {
	for _, state := range []corev1.ContainerState{waiting("ContainerCreating", ""), waiting("ErrImagePull", "pull QPS exceeded")} {
		c, _ := kubelets(t, func(string, string, corev1.PullPolicy) corev1.ContainerState { return state })
		nodes, err := Pull(t.Context(), c, Options{Images: []string{"r/one"}, Limit: time.Millisecond})
		if err != nil || nodes[0].Missing() != 1 || !strings.Contains(nodes[0].Images[0].Why, "still being pulled") {
			t.Errorf("%+v, %v", nodes, err)
		}
	}
}

// TestAPodThatIsEndedProvesNothing: of an evicted pod the kubelet says that its containers have
// ended, those whose images it never had, too.
func TestAPodThatIsEndedProvesNothing(t *testing.T) {
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137, Message: "could not be located"}}
	c, _ := kubelets(t, func(_, image string, _ corev1.PullPolicy) corev1.ContainerState {
		if image == "r/one" {
			return started()
		}
		return ended
	})
	nodes, err := Pull(t.Context(), c, Options{Images: []string{"r/one", "r/two"}, Limit: time.Minute})
	if err != nil || nodes[0].Missing() != 1 || !nodes[0].Images[0].Present || !strings.Contains(nodes[0].Images[1].Why, "could not be located") {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// TestNames: the site's mirror, then what its overlays rename, then the plan's mappings; another
// application's overlay does nothing.
func TestNames(t *testing.T) {
	overlay := func(name, text string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: name, Labels: map[string]string{"davit.dev/overlay": "true"}}, Data: map[string]string{"r": text}}
	}
	c, _ := kubelets(t, nil, overlay("m", "applications: [shop]\nmirrorImagesFrom: west.example.com/m\n"),
		overlay("r", "applications: [bank]\nrules: [{name: r, images: [{from: quay.io, to: west.example.com/q}]}]\n"))
	p := &plan.Plan{Sites: []plan.Site{{Name: "east"}, {Name: "west", Mappings: []plan.Mapping{{Kind: plan.MapImage, From: "ghcr.io", To: "west.example.com/g"}}}}, Steps: []plan.Step{
		{Command: &plan.Command{Image: "registry.example.com/warm:3"}},
	}}
	needs := []preflight.Need{
		{Application: "shop", Images: []preflight.Image{{Reference: "nginx:1", Digest: "sha256:aa"}}},
		{Application: "bank", Images: []preflight.Image{{Reference: "quay.io/x/y:2"}, {Reference: "ghcr.io/z", Digest: "sha256:bb"}}},
	}
	for site, want := range map[string][]string{
		"west": {"registry.example.com/warm:3", "west.example.com/g/z@sha256:bb", "west.example.com/m/index.docker.io/library/nginx:1@sha256:aa", "west.example.com/q/x/y:2"},
		"east": {"ghcr.io/z@sha256:bb", "registry.example.com/warm:3", "west.example.com/m/index.docker.io/library/nginx:1@sha256:aa", "west.example.com/q/x/y:2"},
	} {
		if got, err := ForPlan(t.Context(), c, p, site, needs, ""); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", site, got, err)
		}
	}
}

func TestRecord(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c, _ := kubelets(t, nil)
	read := func(at time.Time) map[string]census.Stock {
		var cm corev1.ConfigMap
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "davit-system", Name: census.StockName}, &cm); err != nil {
			t.Fatal(err)
		}
		return census.ReadStock(&cm, at)
	}
	nodes := []Node{{Name: "a", Images: []Image{{Name: "x", Present: true}, {Name: "y"}}}, {Name: "b", Images: []Image{{Name: "x", Present: true}, {Name: "y", Present: true}}}}
	if err := Record(t.Context(), c, nodes, now); err != nil {
		t.Fatal(err)
	}
	if got := read(now); got["x"].Nodes != 2 || got["y"].Nodes != 1 {
		t.Errorf("%+v", got)
	}
	later := now.Add(time.Hour)
	if err := Record(t.Context(), c, []Node{{Name: "a", Images: []Image{{Name: "x"}}}}, later); err != nil {
		t.Fatal(err)
	}
	if got := read(later); got["x"].Nodes != 0 || got["y"].Nodes != 1 {
		t.Errorf("%+v", got)
	}
	if got := read(now.Add(25 * time.Hour)); len(got) != 1 {
		t.Errorf("what is a day old still counts: %+v", got)
	}
}
