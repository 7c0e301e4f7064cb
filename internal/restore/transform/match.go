package transform

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/selection"
)

// costLimit bounds what one condition may cost on one object, in CEL's own
// units: the API server allows as much for one call.
const costLimit = 1_000_000

// matcher is a Match ready to be asked.
type matcher struct {
	kinds, namespaces, names []string
	labels                   labels.Selector
	condition                cel.Program // nil without one
}

func compileMatch(m Match) (matcher, error) {
	c := matcher{kinds: m.Kinds, namespaces: m.Namespaces, names: m.Names, labels: labels.Everything()}
	if slices.Contains(slices.Concat(m.Kinds, m.Namespaces, m.Names), "") {
		return c, errors.New(`match: a kind, namespace or name is empty: write "*" for any`)
	}
	if m.LabelSelector != nil {
		var err error
		if c.labels, err = metav1.LabelSelectorAsSelector(m.LabelSelector); err != nil {
			return c, fmt.Errorf("match: labelSelector: %w", err)
		}
	}
	if m.Condition == "" {
		return c, nil
	}
	if len(m.Condition) > maxExpression {
		return c, fmt.Errorf("match: the condition has %d characters, more than %d", len(m.Condition), maxExpression)
	}
	var err error
	c.condition, err = compileCondition(m.Condition)
	return c, err
}

func compileCondition(text string) (cel.Program, error) {
	env, err := cel.NewEnv(
		cel.Variable("object", cel.MapType(cel.StringType, cel.DynType)),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(),
		cel.ParserRecursionLimit(100), cel.ParserExpressionSizeLimit(maxExpression),
	)
	if err != nil {
		return nil, fmt.Errorf("match: prepare CEL: %w", err)
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("match: condition: %w", err)
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("match: the condition is a %s, and must be true or false", out)
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("match: condition: %w", err)
	}
	return program, nil
}

func (m matcher) matches(o Object) (bool, error) {
	meta := shape.Child(o.Document, "metadata")
	if !m.wantsKind(o) || !anyGlob(m.names, shape.Text(meta, "name")) {
		return false, nil
	}
	namespace := shape.Text(meta, "namespace")
	if o.Kind == shape.KindNamespace {
		namespace = shape.Text(meta, "name")
	}
	if !anyGlob(m.namespaces, namespace) || !m.labels.Matches(labelsOf(meta)) {
		return false, nil
	}
	if m.condition == nil {
		return true, nil
	}
	value, _, err := m.condition.Eval(map[string]any{"object": o.Document})
	if err != nil && o.Kind == shape.KindSecret { // the reason may quote it
		return false, errors.New("its condition fails on this Secret: ask with has() before a field that may not be there")
	}
	if err != nil {
		return false, fmt.Errorf("its condition fails: %w: ask with has() before a field that may not be there", err)
	}
	yes, ok := value.Value().(bool)
	if !ok {
		return false, errors.New("its condition is neither true nor false here")
	}
	return yes, nil
}

func (m matcher) wantsKind(o Object) bool {
	if len(m.kinds) == 0 || shape.MatchesKind(m.kinds, schema.GroupResource{Group: o.Kind.Group, Resource: o.Resource}) {
		return true
	}
	return slices.ContainsFunc(m.kinds, func(k string) bool {
		return strings.EqualFold(k, o.Kind.Kind) || strings.EqualFold(k, o.Kind.String())
	})
}

func anyGlob(patterns []string, text string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return selection.Glob(p, text) })
}

func labelsOf(meta shape.Document) labels.Set {
	set := labels.Set{}
	for k, v := range shape.Child(meta, "labels") {
		if text, ok := v.(string); ok {
			set[k] = text
		}
	}
	return set
}
