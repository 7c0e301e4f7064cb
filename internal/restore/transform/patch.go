package transform

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/restore/shape"
)

// copyLimit bounds what copy operations of one patch may add to an object: no
// object that etcd takes is larger.
const copyLimit = 3 << 20

// operation is one of RFC 6902, as it is checked when a rule is compiled.
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  *string         `json:"from,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

func (o operation) check() error {
	if o.Path == nil {
		return errors.New("has no path")
	}
	for _, p := range []*string{o.Path, o.From} {
		if p != nil && *p != "" && (*p)[0] != '/' {
			return fmt.Errorf("the path %q does not begin with a slash", *p)
		}
	}
	switch o.Op {
	case "add", "replace", "test":
		if o.Value == nil {
			return fmt.Errorf("%s has no value", o.Op)
		}
	case "move", "copy":
		if o.From == nil {
			return fmt.Errorf("%s has no from", o.Op)
		}
	case "remove":
	default:
		return fmt.Errorf("%q is no operation: add, remove, replace, move, copy or test", o.Op)
	}
	if *o.Path == "" && o.Op != "test" {
		return errors.New("the whole object cannot be replaced")
	}
	return nil
}

func compileJSON(rule Rule) (action, error) {
	if rule.JSONPatch == "" {
		return nil, nil
	}
	text, err := yaml.YAMLToJSONStrict([]byte(rule.JSONPatch))
	if err != nil {
		return nil, fmt.Errorf("jsonPatch: %w", err)
	}
	var operations []operation
	if err := json.Unmarshal(text, &operations); err != nil {
		return nil, fmt.Errorf("jsonPatch: want a list of operations as in RFC 6902: %w", err)
	}
	if len(operations) == 0 || len(operations) > maxOperations {
		return nil, fmt.Errorf("jsonPatch: has %d operations, want 1 to %d", len(operations), maxOperations)
	}
	for i, o := range operations {
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("jsonPatch: operation %d: %w", i+1, err)
		}
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return nil, fmt.Errorf("jsonPatch: %w", err)
	}
	return func(o Object) (bool, error) { return true, applyJSON(o.Document, patch, operations) }, nil
}

// applyJSON applies a whole patch, or nothing of it.
func applyJSON(d shape.Document, patch jsonpatch.Patch, operations []operation) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("jsonPatch: encode the object: %w", err)
	}
	changed, err := patched(raw, patch)
	if err != nil {
		return failedAt(raw, patch, operations)
	}
	var now shape.Document
	if err := utiljson.Unmarshal(changed, &now); err != nil || now == nil {
		return errors.New("jsonPatch: leaves no object")
	}
	clear(d)
	maps.Copy(d, now)
	return nil
}

func patched(raw []byte, patch jsonpatch.Patch) ([]byte, error) {
	opts := jsonpatch.NewApplyOptions()
	opts.SupportNegativeIndices, opts.AccumulatedCopySizeLimit = false, copyLimit
	return patch.ApplyWithOptions(raw, opts)
}

// failedAt finds the operation that fails, and says so without a word of what
// is in the object.
func failedAt(raw []byte, patch jsonpatch.Patch, operations []operation) error {
	for i := range patch {
		next, err := patched(raw, patch[i:i+1])
		if err == nil {
			raw = next
			continue
		}
		why := "does not fit the object"
		switch {
		case errors.Is(err, jsonpatch.ErrTestFailed):
			why = "the object has another value"
		case errors.Is(err, jsonpatch.ErrMissing), errors.Is(err, jsonpatch.ErrInvalidIndex):
			why = "the object has no such field"
		}
		return fmt.Errorf("jsonPatch: operation %d (%s %s): %s: match only objects that have it, or guard the rule with a condition", i+1, operations[i].Op, *operations[i].Path, why)
	}
	return errors.New("jsonPatch: does not fit the object")
}

func compileMerge(rule Rule) (action, error) {
	if rule.MergePatch == "" {
		return nil, nil
	}
	text, err := yaml.YAMLToJSONStrict([]byte(rule.MergePatch))
	if err != nil {
		return nil, fmt.Errorf("mergePatch: %w", err)
	}
	var patch shape.Document
	if err := utiljson.Unmarshal(text, &patch); err != nil {
		return nil, fmt.Errorf("mergePatch: want an object as in RFC 7396: %w", err)
	}
	if len(patch) == 0 {
		return nil, errors.New("mergePatch: is empty")
	}
	return func(o Object) (bool, error) {
		shape.Merge(o.Document, runtime.DeepCopyJSON(patch)) // objects must not share what it adds
		return true, nil
	}, nil
}
