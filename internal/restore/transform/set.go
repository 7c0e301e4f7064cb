package transform

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
)

// Source is rules, and where they were found.
type Source struct {
	Name  string // for people: "overlay west-hosts", "file rules.yaml"
	Rules []Rule
}

// Set is compiled rules in the order in which they are applied. It is safe for
// use by several goroutines. A nil Set changes nothing.
type Set struct {
	mirror *Mirror
	rules  []*compiled
}

// compiled is a rule ready to be applied.
type compiled struct {
	title   string
	match   matcher
	actions []action
}

// action changes a document. relevant says that it had something to act on.
type action func(o Object) (relevant bool, err error)

// Object is an object on its way to the target.
type Object struct {
	Kind     schema.GroupKind
	Resource string // plural, without its group
	Document shape.Document
}

// Error says which rule failed on an object.
type Error struct {
	Rule string
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Rule + ": " + e.Err.Error() }

// Unwrap is the reason.
func (e *Error) Unwrap() error { return e.Err }

// Compile checks and compiles everything: the mirror first, which may be nil,
// and then the sources in their order. The error joins all that is wrong.
func Compile(mirror *Mirror, sources ...Source) (*Set, error) {
	s := &Set{mirror: mirror}
	var wrong []error
	if mirror != nil {
		wrong = append(wrong, mirror.check())
	}
	for _, source := range sources {
		if len(source.Rules) > maxRules {
			wrong = append(wrong, fmt.Errorf("%s: %d rules are more than %d", source.Name, len(source.Rules), maxRules))
			continue
		}
		for i, rule := range source.Rules {
			title := fmt.Sprintf("%s: rule %d", source.Name, i+1)
			if rule.Name != "" {
				title = fmt.Sprintf("%s: rule %q", source.Name, rule.Name)
			}
			c, err := compile(title, rule)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", title, err))
			}
			s.rules = append(s.rules, c)
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if mirror == nil && len(s.rules) == 0 {
		return nil, nil
	}
	return s, nil
}

func compile(title string, rule Rule) (*compiled, error) {
	c := &compiled{title: title}
	var err error
	if c.match, err = compileMatch(rule.Match); err != nil {
		return nil, err
	}
	for _, make := range []func(Rule) (action, error){compileClasses, compileIngressClasses, compileNodeLabels, compileImages, compileHosts, compileMerge, compileJSON} {
		do, err := make(rule)
		if err != nil {
			return nil, err
		}
		if do != nil {
			c.actions = append(c.actions, do)
		}
	}
	if len(c.actions) == 0 {
		return nil, errors.New("does nothing: give it jsonPatch, mergePatch, images, hosts, storageClasses, ingressClasses or nodeLabels")
	}
	return c, nil
}

// Len is how many rules there are.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.rules)
}

// Title names a rule for people.
func (s *Set) Title(rule int) string { return s.rules[rule].title }

// Apply changes the object by every rule that matches it, in order, and tells
// matched, which may be nil, of each rule that had something to act on. When a
// rule fails the object is of no use any more.
func (s *Set) Apply(o Object, matched func(rule int)) error {
	if s == nil {
		return nil
	}
	if s.mirror != nil {
		s.mirror.rewrite(o.Document)
	}
	for i, r := range s.rules {
		ok, err := r.apply(o)
		if err != nil {
			return &Error{Rule: r.title, Err: err}
		}
		if ok && matched != nil {
			matched(i)
		}
	}
	return nil
}

func (c *compiled) apply(o Object) (bool, error) {
	ok, err := c.match.matches(o)
	if err != nil || !ok {
		return false, err
	}
	before := identityOf(o.Document)
	acted := false
	for _, do := range c.actions {
		relevant, err := do(o)
		if err != nil {
			return false, err
		}
		acted = acted || relevant
	}
	return acted, before.check(o.Document)
}

// identity is what no rule may change.
type identity struct {
	fields [4]string
	marks  [2]map[string]any // labels and annotations of Davit's own
}

var identityNames = [4]string{"apiVersion", "kind", "metadata.name", "metadata.namespace"}

func identityOf(d shape.Document) identity {
	return identity{
		fields: [4]string{shape.Text(d, "apiVersion"), shape.Text(d, "kind"), shape.Text(d, "metadata", "name"), shape.Text(d, "metadata", "namespace")},
		marks:  [2]map[string]any{marksOf(shape.Child(d, "metadata", "labels")), marksOf(shape.Child(d, "metadata", "annotations"))},
	}
}

func marksOf(d shape.Document) map[string]any {
	var marks map[string]any
	for k, v := range d {
		if strings.HasPrefix(k, shape.GroupDavit+"/") {
			if marks == nil {
				marks = map[string]any{}
			}
			marks[k] = v
		}
	}
	return marks
}

func (i identity) check(d shape.Document) error {
	now := identityOf(d)
	for n, was := range i.fields {
		if now.fields[n] != was {
			return fmt.Errorf("it may not change %s: to rename namespaces, give a namespace mapping", identityNames[n])
		}
	}
	for n, was := range i.marks {
		if !reflect.DeepEqual(was, now.marks[n]) {
			return fmt.Errorf("it may not change labels and annotations of %s/, which are Davit's own marks", shape.GroupDavit)
		}
	}
	return nil
}
