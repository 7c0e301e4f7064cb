package standby

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

// memory is a cluster that remembers objects. Whatever else is asked of it panics.
type memory struct {
	restore.Cluster

	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured
	version int
	// changed is told of every object that was created or changed, and may change
	// it: it plays the controllers.
	changed func(u *unstructured.Unstructured)
	// read is told of every object that was read by its name.
	read func(u *unstructured.Unstructured)
}

func newMemory(t *testing.T, documents ...string) *memory {
	t.Helper()
	m := &memory{objects: map[string]*unstructured.Unstructured{}}
	for _, text := range documents {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		u.SetUID(types.UID("uid-" + u.GetName()))
		m.objects[keyOf(u.GroupVersionKind().GroupKind(), u.GetNamespace(), u.GetName())] = u
	}
	return m
}

func keyOf(kind schema.GroupKind, namespace, name string) string {
	return kind.String() + "/" + namespace + "/" + name
}

func (m *memory) Serves(_ context.Context, kind schema.GroupKind) ([]restore.Served, error) {
	gvk := kind.WithVersion("v1")
	return []restore.Served{{GVK: gvk, GVR: schema.GroupVersionResource{Group: kind.Group, Version: "v1", Resource: strings.ToLower(kind.Kind) + "s"}, Namespaced: true}}, nil
}

func missing(at restore.Served, name string) error {
	return apierrors.NewNotFound(at.GVR.GroupResource(), name)
}

func (m *memory) Get(_ context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.objects[keyOf(at.GVK.GroupKind(), namespace, name)]
	if u == nil {
		return nil, missing(at, name)
	}
	if m.read != nil {
		m.read(u)
	}
	return u.DeepCopy(), nil
}

// put keeps an object; m.mu is held.
func (m *memory) put(at restore.Served, u *unstructured.Unstructured) *unstructured.Unstructured {
	m.version++
	u = u.DeepCopy()
	u.SetResourceVersion(strconv.Itoa(m.version))
	if m.changed != nil {
		m.changed(u)
	}
	m.objects[keyOf(at.GVK.GroupKind(), u.GetNamespace(), u.GetName())] = u
	return u.DeepCopy()
}

func (m *memory) Create(_ context.Context, at restore.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects[keyOf(at.GVK.GroupKind(), u.GetNamespace(), u.GetName())] != nil {
		return nil, apierrors.NewAlreadyExists(at.GVR.GroupResource(), u.GetName())
	}
	return m.put(at, u), nil
}

func (m *memory) Update(_ context.Context, at restore.Served, u *unstructured.Unstructured, _ string) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.objects[keyOf(at.GVK.GroupKind(), u.GetNamespace(), u.GetName())]
	switch {
	case old == nil:
		return nil, missing(at, u.GetName())
	case old.GetResourceVersion() != u.GetResourceVersion():
		return nil, apierrors.NewConflict(at.GVR.GroupResource(), u.GetName(), nil)
	}
	return m.put(at, u), nil
}

func (m *memory) Patch(_ context.Context, at restore.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.objects[keyOf(at.GVK.GroupKind(), namespace, name)]
	if u == nil {
		return nil, missing(at, name)
	}
	change := shape.Document{}
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	if version := shape.Text(change, "metadata", "resourceVersion"); version != "" && version != u.GetResourceVersion() {
		return nil, apierrors.NewConflict(at.GVR.GroupResource(), name, nil)
	}
	u = u.DeepCopy()
	shape.Merge(u.Object, change)
	text, err := u.MarshalJSON() // numbers as the API server gives them
	if err == nil {
		err = u.UnmarshalJSON(text)
	}
	if err != nil {
		return nil, err
	}
	return m.put(at, u), nil
}

func (m *memory) Delete(_ context.Context, at restore.Served, u *unstructured.Unstructured, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := keyOf(at.GVK.GroupKind(), u.GetNamespace(), u.GetName())
	if m.objects[key] == nil {
		return missing(at, u.GetName())
	}
	delete(m.objects, key)
	return nil
}

func (m *memory) List(_ context.Context, at restore.Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	chosen, err := labels.Parse(selector)
	if err != nil {
		return err
	}
	m.mu.Lock()
	var found []*unstructured.Unstructured
	for _, u := range m.objects {
		if u.GroupVersionKind().GroupKind() == at.GVK.GroupKind() && (namespace == "" || u.GetNamespace() == namespace) && chosen.Matches(labels.Set(u.GetLabels())) {
			found = append(found, u.DeepCopy())
		}
	}
	m.mu.Unlock()
	for _, u := range found {
		if err := fn(u); err != nil {
			return err
		}
	}
	return nil
}

// noted are marks that say of one order that it was begun, as execute.Aged has them.
type noted struct{ o execute.Order }

func (n noted) Load(context.Context, string, string) (execute.Mark, error) {
	return execute.Mark{Seen: n.o.Token.Sequence, Began: n.o.Token.Sequence, Last: n.o.Action}, nil
}

func (noted) Save(context.Context, string, string, execute.Mark) error { return nil }

// commands gives a site a command's order that nothing refuses.
func commands(ctx context.Context, s *Site, o execute.Order) execute.Answer {
	s.marks = noted{o}
	return s.infrastructure(ctx, o)
}

// dozing is a cluster as a process sees it that stands still before it changes an Application.
type dozing struct {
	*memory
	doze func()
}

func (d *dozing) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Secret" && d.doze != nil {
		d.doze()
	}
	return d.memory.Get(ctx, at, namespace, name)
}

func (d *dozing) Patch(ctx context.Context, at restore.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Application" && d.doze != nil {
		d.doze()
	}
	return d.memory.Patch(ctx, at, namespace, name, patch)
}
