package equipping

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	authz "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/mem"
)

var (
	noon    = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	errDied = errors.New("killed")
)

// cluster is one of whose methods a run's first steps use few.
type cluster struct {
	wiring.Cluster
	c         client.Client
	lives     int // changes until whoever makes them dies; negative: nobody does
	installed install.Options
	denied    string // resource that may not be created
}

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	k := &cluster{lives: -1}
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "uid-of-west"}}
	k.c = fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(append(objects, system)...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if review, ok := o.(*authz.SelfSubjectAccessReview); ok {
				review.Status.Allowed = review.Spec.ResourceAttributes.Resource != k.denied
				return nil
			}
			if k.lives == 0 {
				return errDied
			}
			k.lives--
			return c.Create(ctx, o, opts...)
		},
	}).Build()
	return k
}

func (k *cluster) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return k.c.Get(ctx, key, o, opts...)
}

func (k *cluster) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	return k.c.List(ctx, l, opts...)
}

func (k *cluster) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return k.c.Create(ctx, o, opts...)
}

func (k *cluster) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return k.c.Update(ctx, o, opts...)
}

func (k *cluster) ServerVersion(context.Context) (string, error) { return "v1.34.4", nil }

func (k *cluster) Install(ctx context.Context, opts install.Options, progress install.Progress) error {
	k.installed = opts
	progress("accounts, agent and node processes")
	site := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: opts.SiteName, Labels: map[string]string{install.LocalLabel: "true"}}}
	agent, node := &appsv1.Deployment{}, &appsv1.DaemonSet{}
	agent.Namespace, agent.Name, agent.Status.AvailableReplicas = v1alpha1.SystemNamespace, install.AgentName, 1
	node.Namespace, node.Name, node.Status.NumberReady = v1alpha1.SystemNamespace, install.NodeName, 1
	for _, o := range []client.Object{site, agent, node} {
		if err := client.IgnoreAlreadyExists(k.c.Create(ctx, o)); err != nil {
			return err
		}
	}
	return nil
}

// night is one at which a run is wanted: a cluster, and a vault that another site made.
type night struct {
	t     *testing.T
	k     *cluster
	store vault.Store
	in    *access.Opened
	host  *Host
	ask   Ask
	said  bytes.Buffer
}

func newNight(t *testing.T) *night {
	t.Helper()
	n := &night{t: t, k: newCluster(t), store: mem.New(func() time.Time { return noon })}
	key, err := vault.NewRecoveryKey()
	n.check(err)
	_, err = vault.Init(t.Context(), n.store)
	n.check(err)
	project, err := vault.CreateProject(t.Context(), n.store, "default", key.Recipient())
	n.check(err)
	file := filepath.Join(t.TempDir(), "recovery.key")
	n.check(os.WriteFile(file, []byte(key.Secret()), 0o600))
	n.in = &access.Opened{Project: project}
	flags := pflag.NewFlagSet("failover", pflag.ContinueOnError)
	address, way := &access.Address{}, &Way{}
	address.BreakGlass(flags)
	way.Flags(flags)
	n.check(flags.Parse([]string{"--vault-url", "s3://bucket/davit", "--recovery-key-file", file, "--image", "registry.example.com/davit:1", "--kubelet-root", "/srv/kubelet"}))
	n.ask = Ask{Address: address, Flags: flags, Way: way, Site: "west"}
	n.host = &Host{
		Err: &n.said, Now: func() time.Time { return noon }, Step: func(string, ...any) {}, Quiet: func() {}, Timeout: func() time.Duration { return 0 },
		AskFor:  func(string, string) error { return exit.Refuse("", "not confirmed") },
		Cluster: func() (wiring.Cluster, error) { return n.k, nil },
		Opener: func() *access.Opener {
			return &access.Opener{
				Store: func(context.Context, backend.Config) (vault.Store, error) { return n.store, nil },
				Getenv: func(name string) string {
					return map[string]string{"DAVIT_ACCESS_KEY": "AK", "DAVIT_SECRET_KEY": "SK"}[name]
				},
			}
		},
	}
	return n
}

func (n *night) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *night) look() (*Need, error) { return n.host.Look(n.t.Context(), n.k, n.in, n.ask) }

// refused checks that a look is refused with these words.
func (n *night) refused(words string) {
	n.t.Helper()
	_, err := n.look()
	if !exit.IsRefusal(err) || !strings.Contains(err.Error(), words) {
		n.t.Errorf("%v, want a refusal with %q", err, words)
	}
}

// TestWhateverItDiesAt: the same command goes on after a death at any change, until all
// is there; and where all is there, nothing is done.
func TestWhateverItDiesAt(t *testing.T) {
	deaths := 0
	for lives := 0; ; lives++ {
		n := newNight(t)
		n.k.lives = lives
		need, err := n.look()
		n.check(err)
		if want := []string{"Davit is installed into this cluster, as site west, from registry.example.com/davit:1", "site west joins the vault, as main"}; !slices.Equal(need.Told(), want) {
			t.Fatalf("%q", need.Told())
		}
		err = n.host.Equip(t.Context(), need, n.ask, true)
		if errors.Is(err, errDied) {
			deaths++
			if _, hint := exit.Verdict(err); !strings.Contains(hint, "give the same command again") {
				t.Errorf("after %d changes: %v, %q", lives, err, hint)
			}
			n.k.lives = -1
			if need, err = n.look(); err == nil {
				err = n.host.Equip(t.Context(), need, n.ask, true)
			}
		}
		n.check(err)
		var v v1alpha1.Vault
		n.check(n.k.Get(t.Context(), client.ObjectKey{Name: "main"}, &v))
		var secret corev1.Secret
		n.check(n.k.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v.Spec.SecretName}, &secret))
		if v.Spec.URL != "s3://bucket/davit" || string(secret.Data[access.SecretKey]) != "SK" || n.k.installed.KubeletRoot != "/srv/kubelet" {
			t.Errorf("%+v, %+v", v.Spec, n.k.installed)
		}
		if need, err := n.look(); err != nil || need != nil {
			t.Errorf("all is there, and still it needs %+v, %v", need, err)
		}
		if lives > 0 && deaths < lives { // it did not die any more
			break
		}
	}
	if deaths < 5 { // site, agent, node, Secret, Vault
		t.Errorf("it died at %d changes only", deaths)
	}
}

func TestWhatCannotBePutThere(t *testing.T) {
	n := newNight(t)
	image := n.ask.Way.Options.Image
	n.ask.Way.Options.Image = ""
	n.refused("this cluster has no Davit")
	n.ask.Way.Options.Image = image
	n.k.denied = "clusterroles"
	n.refused("it takes the right to create clusterroles")
	n.k.denied = ""
	n.ask.Address.Endpoint = "http://minio.storage.svc:9000"
	n.refused("a name inside the cluster")
	n.ask.Address.Endpoint = ""
	n.ask.Site = "Not A Name"
	if _, err := n.look(); exit.Code(err) != exit.BadUsage {
		t.Errorf("%v", err)
	}
	if n.k.installed.SiteName != "" {
		t.Error("something was installed")
	}
}

// TestATakenName: a name that another cluster bears is given away by a person alone,
// and never while that cluster lives.
func TestATakenName(t *testing.T) {
	n := newNight(t)
	n.check(lease.Beat(t.Context(), n.in.Project, vault.SiteStatus{Site: "west", Cluster: "another", Time: noon}))
	n.ask.Way.ReplaceLost = true
	n.refused("knows site west as another cluster (another)")
	n.ask.Site = "north" // the control
	if need, err := n.look(); err != nil || need == nil {
		t.Errorf("a free name: %+v, %v", need, err)
	}
}

// TestWhereDavitIs: a site that has all is not touched, though its processes be down and
// its installed image another; unless somebody says so.
func TestWhereDavitIs(t *testing.T) {
	n := newNight(t)
	need, err := n.look()
	n.check(err)
	n.check(n.host.Equip(t.Context(), need, n.ask, true))
	var node appsv1.DaemonSet
	n.check(n.k.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: install.NodeName}, &node))
	node.Status.NumberReady = 0
	n.check(n.k.c.Status().Update(t.Context(), &node))
	if need, err := n.look(); err != nil || need != nil {
		t.Errorf("%+v, %v", need, err)
	}
	n.ask.Way.Install = true
	var site v1alpha1.Site
	n.check(n.k.Get(t.Context(), client.ObjectKey{Name: "west"}, &site))
	site.Spec.FailureDomain = "room-2"
	n.check(n.k.Update(t.Context(), &site))
	var agent appsv1.Deployment
	n.check(n.k.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: install.AgentName}, &agent))
	agent.Spec.Replicas = ptr.To[int32](3)
	n.check(n.k.Update(t.Context(), &agent))
	need, err = n.look()
	if err != nil || need == nil || !need.Davit || need.Vault != "" || need.Site != "west" || !strings.Contains(need.Told()[0], "installed anew") {
		t.Fatalf("%+v, %v", need, err)
	}
	n.check(n.host.Equip(t.Context(), need, n.ask, true))
	if o := n.k.installed; o.FailureDomain != "room-2" || o.Replicas != 3 {
		t.Errorf("what it was is lost: %+v", o)
	}
}

// TestALostClustersName asks a person, unless nobody is to be asked.
func TestALostClustersName(t *testing.T) {
	sign := vault.SiteStatus{Site: "west", Cluster: "another"}
	asked := 0
	ask := func(name, _ string) error { asked++; return nil }
	if err := errors.Join(Lost(io.Discard, func() {}, ask, true)(sign), Lost(io.Discard, func() {}, ask, false)(sign)); err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
