// Package document decides what documents a console takes: the kinds that
// clusters have, checked as an API server would check them, by the same schemas
// and rules, with the API server's own library; and recovery plans, checked as
// the command line checks them.
package document

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/config"
	"davit.dev/davit/internal/console/account"
	plandocument "davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/vault"
)

// ErrInvalid says that a document is not one that would be taken.
var ErrInvalid = errors.New("document not valid")

// MaxSize bounds a document, in bytes.
const MaxSize = 1 << 20

// Kind is a kind of documents that a console keeps.
type Kind struct {
	Name       string
	Plural     string
	Namespaced bool
	// Write is what it takes to write one.
	Write account.Permission

	crd string
	// more is checked besides what its definition asks for.
	more func(spec json.RawMessage, name string) error
	one  sync.Once
	err  error

	schema    *schema.Structural
	raw       *apiextensionsv1.JSONSchemaProps
	validator validation.SchemaValidator
	rules     *cel.Validator
}

// kinds are all there are. Restores, runs and what agents report are made at a
// site, with the rights of whoever asks there.
var kinds = []*Kind{
	{Name: "Application", Plural: "applications", Namespaced: true, Write: account.Protect, crd: "davit.dev_applications.yaml"},
	{Name: "ProtectionPolicy", Plural: "protectionpolicies", Namespaced: true, Write: account.Protect, crd: "davit.dev_protectionpolicies.yaml"},
	{Name: "RecoveryPlan", Plural: "recoveryplans", Write: account.Recover, crd: "davit.dev_recoveryplans.yaml", more: checkPlan},
}

// Kinds are all kinds that a console keeps.
func Kinds() []*Kind { return slices.Clone(kinds) }

// Find returns a kind by its name or plural, in any case, as people type it.
func Find(name string) (*Kind, bool) {
	for _, k := range kinds {
		if strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) {
			return k, true
		}
	}
	return nil, false
}

// Document is a document that was taken: its name, and what is kept of it.
type Document struct {
	Kind      *Kind
	Namespace string
	Name      string
	// Revision is the resourceVersion that the writer saw; "" if he does not say.
	Revision string
	// Body is the object without what the console itself keeps: labels and
	// annotations of its metadata, and the spec.
	Body json.RawMessage
}

// head is what every document has.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   meta   `json:"metadata"`
}

type meta struct {
	Name            string            `json:"name,omitempty"`
	Namespace       string            `json:"namespace,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// Parse reads a document from YAML or JSON and checks it whole.
func Parse(ctx context.Context, data []byte) (*Document, error) {
	d, err := parse(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return d, nil
}

func parse(ctx context.Context, data []byte) (*Document, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var h head
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, err
	}
	k, ok := Find(h.Kind)
	if !ok || h.Kind != k.Name || h.APIVersion != v1alpha1.GroupVersion.String() {
		if h.Kind == "" && h.APIVersion == "" {
			return nil, fmt.Errorf("apiVersion and kind are missing: a console keeps %s of %s", names(), v1alpha1.GroupVersion)
		}
		return nil, fmt.Errorf("it is a %q of %q; a console keeps %s of %s", h.Kind, h.APIVersion, names(), v1alpha1.GroupVersion)
	}
	if k.Namespaced && h.Metadata.Namespace == "" {
		h.Metadata.Namespace = v1alpha1.SystemNamespace
	}
	if !k.Namespaced && h.Metadata.Namespace != "" {
		return nil, fmt.Errorf("a %s has no namespace", k.Name)
	}
	if err := errors.Join(checkHead(k, h.Metadata), checkSites(k, h.Metadata.Annotations)); err != nil {
		return nil, err
	}
	spec, err := k.check(ctx, text, h.Metadata)
	if err != nil {
		return nil, err
	}
	d := &Document{Kind: k, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name, Revision: h.Metadata.ResourceVersion}
	d.Body, err = json.Marshal(body{Metadata: meta{Labels: h.Metadata.Labels, Annotations: h.Metadata.Annotations}, Spec: spec})
	if err == nil && len(d.Body) > maxBody {
		err = fmt.Errorf("it has more than %d bytes as JSON", maxBody)
	}
	return d, err
}

// body is what is kept.
type body struct {
	Metadata meta            `json:"metadata"`
	Spec     json.RawMessage `json:"spec"`
}

func names() string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.Name)
	}
	return strings.Join(all, ", ")
}

// lastApplied is what kubectl leaves in objects: a second copy of all of it.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func checkHead(k *Kind, m meta) error {
	if err := vault.CheckName(m.Name); err != nil {
		return fmt.Errorf("metadata.name: %w", err)
	}
	if k.Namespaced {
		if err := vault.CheckName(m.Namespace); err != nil || strings.Contains(m.Namespace, ".") {
			return fmt.Errorf("metadata.namespace: %q is no namespace", m.Namespace)
		}
	}
	delete(m.Annotations, lastApplied)
	metadata := field.NewPath("metadata")
	faults := slices.Concat(
		metavalidation.ValidateLabels(m.Labels, metadata.Child("labels")),
		validateAnnotations(m.Annotations, metadata.Child("annotations")),
	)
	return faults.ToAggregate()
}

// maxAnnotations is what an API server takes, in bytes.
const maxAnnotations = 256 << 10

func validateAnnotations(all map[string]string, at *field.Path) (faults field.ErrorList) {
	size := 0
	for key, value := range all {
		size += len(key) + len(value)
		for _, problem := range metavalidation.ValidateLabels(map[string]string{strings.ToLower(key): ""}, at) {
			faults = append(faults, field.Invalid(at, key, problem.Detail))
		}
	}
	if size > maxAnnotations {
		faults = append(faults, field.TooLong(at, "", maxAnnotations))
	}
	return faults
}

// check checks what a kind asks for, and returns the spec to be kept.
func (k *Kind) check(ctx context.Context, text []byte, m meta) (json.RawMessage, error) {
	if err := k.load(); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, err
	}
	if err := numbers(object); err != nil {
		return nil, err
	}
	delete(object, "status")
	object["metadata"] = map[string]any{"name": m.Name, "namespace": m.Namespace}
	if unknown := pruning.PruneWithOptions(object, k.schema, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(unknown) > 0 {
		return nil, fmt.Errorf("a %s has no field %s", k.Name, strings.Join(unknown, ", "))
	}
	defaulting.Default(object, k.schema)
	faults := validation.ValidateCustomResource(nil, object, k.validator)
	if len(faults) == 0 && k.rules != nil {
		faults, _ = k.rules.Validate(ctx, nil, k.schema, object, nil, celconfig.RuntimeCELCostBudget)
	}
	if err := faults.ToAggregate(); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(object["spec"])
	if err == nil && k.more != nil {
		err = k.more(spec, m.Name)
	}
	return spec, err
}

// numbers makes whole numbers integers, as an API server reads them.
func numbers(in any) error {
	set := func(value any, put func(any)) error {
		n, ok := value.(json.Number)
		if !ok {
			return numbers(value)
		}
		if whole, err := n.Int64(); err == nil {
			put(whole)
			return nil
		}
		f, err := n.Float64()
		put(f)
		return err
	}
	switch in := in.(type) {
	case map[string]any:
		for key, value := range in {
			if err := set(value, func(v any) { in[key] = v }); err != nil {
				return err
			}
		}
	case []any:
		for i, value := range in {
			if err := set(value, func(v any) { in[i] = v }); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPlan checks a plan as `davit plan validate` does.
func checkPlan(spec json.RawMessage, name string) error {
	bare, err := json.Marshal(map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "RecoveryPlan", "metadata": meta{Name: name}, "spec": spec})
	if err != nil {
		return err
	}
	p, err := plandocument.Parse(bare)
	if err != nil {
		return err
	}
	var faults []string
	for _, problem := range p.Check() {
		faults = append(faults, problem.Error())
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

// load makes the validators of a kind, once, from the definition that clusters
// are given.
func (k *Kind) load() error {
	k.one.Do(func() {
		if k.err = k.prepare(); k.err != nil {
			k.err = fmt.Errorf("read definition of %s: %w", k.Name, k.err)
		}
	})
	return k.err
}

func (k *Kind) prepare() error {
	data, err := config.Files.ReadFile("crd/" + k.crd)
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(data, &crd); err != nil {
		return err
	}
	for _, v := range crd.Spec.Versions {
		if v.Name == v1alpha1.GroupVersion.Version && v.Schema != nil {
			k.raw = v.Schema.OpenAPIV3Schema
		}
	}
	if k.raw == nil {
		return fmt.Errorf("it has no version %s", v1alpha1.GroupVersion.Version)
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(k.raw, &internal, nil); err != nil {
		return err
	}
	if k.schema, err = schema.NewStructural(&internal); err != nil {
		return err
	}
	if k.validator, _, err = validation.NewSchemaValidator(&internal); err != nil {
		return err
	}
	k.rules = cel.NewValidator(k.schema, true, celconfig.PerCallLimit)
	return nil
}

// Schema is the kind's schema, as JSON.
func (k *Kind) Schema() (json.RawMessage, error) {
	if err := k.load(); err != nil {
		return nil, err
	}
	return json.Marshal(k.raw)
}
