package standby

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

// Marks returns what remembers, in a site's cluster, the orders that come from a
// vault.
func Marks(c restore.Cluster, vault string) execute.Marks {
	return &notes{cluster: c, vault: vault, scope: scopeOf(vault)}
}

// NotesOf tells whether a ConfigMap of davit-system has, by its name, the marks of a run: of
// one of this site's own, or of one whose orders came from the vault.
func NotesOf(name, vault string) (run string, ok bool) {
	run, ok = strings.CutPrefix(name, notePrefix)
	return strings.TrimPrefix(run, scopeOf(vault)), ok
}

// NotesName is the ConfigMap of davit-system that has the marks of a run at the site that
// carries it.
func NotesName(run string) string { return notePrefix + run }

const notePrefix = "davit-run-"

func scopeOf(vault string) string { return "from-" + vault + "-" }

// notes keep the marks of a run's steps in one ConfigMap of davit-system, an
// entry for each step.
type notes struct {
	cluster restore.Cluster
	vault   string // whose runs they are of
	scope   string // of names: whose orders they are; the target's own have none

	mu    sync.Mutex
	pages map[string]*page // by run: those that are being written
}

func (n *notes) name(run string) string { return notePrefix + n.scope + run }
func noteKey(step string) string        { return strings.ReplaceAll(step, "/", "_") }

// Load implements execute.Marks.
func (n *notes) Load(ctx context.Context, run, step string) (execute.Mark, error) {
	at, err := serving(ctx, n.cluster, shape.KindConfigMap)
	if err != nil {
		return execute.Mark{}, err
	}
	live, err := n.cluster.Get(ctx, at, v1alpha1.SystemNamespace, n.name(run))
	if apierrors.IsNotFound(err) {
		return execute.Mark{}, nil
	}
	if err != nil {
		return execute.Mark{}, fmt.Errorf("read notes of run %s: %w", run, err)
	}
	return mark(live, run, step)
}

func mark(live *unstructured.Unstructured, run, step string) (execute.Mark, error) {
	var m execute.Mark
	text, _, _ := unstructured.NestedString(live.Object, "data", noteKey(step))
	if text == "" {
		return m, nil
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("read notes of run %s: step %s: %w: mend ConfigMap %s", run, step, err, live.GetName())
	}
	m.Version = text
	return m, nil
}

// Save implements execute.Marks.
func (n *notes) Save(ctx context.Context, run, step string, m execute.Mark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	if err := n.write(ctx, run, &entry{key: noteKey(step), was: m.Version, text: string(text), done: make(chan error, 1)}); err != nil {
		return fmt.Errorf("note step %s of run %s: %w", step, run, err)
	}
	return nil
}
