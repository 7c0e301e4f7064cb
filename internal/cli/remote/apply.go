package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
)

// What was done with a document.
const (
	created    = "created"
	configured = "configured"
	unchanged  = "unchanged"
	deleted    = "deleted"
)

func applyCommand(h Host) *cobra.Command {
	var files []string
	var project string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make documents at a console be as files say",
		Long: `Makes or changes applications, policies and plans at a console, from YAML or JSON. All of them are checked first: if one is not
valid, nothing is changed. A document replaces what is there, whole. One with metadata.resourceVersion does so only if nobody has
changed it since, and is refused otherwise.

Agents keep the documents at the sites that they are for; the console's page Documents, and "davit status" at a site, say how each stands there.`,
		Example: `  davit --console https://console.example.com:8443 apply -f policies/
  davit get policy hourly -o yaml > hourly.yaml && vi hourly.yaml && davit apply -f hourly.yaml`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Working(cmd)
			defer cancel()
			all, err := h.read(files)
			if err != nil {
				return err
			}
			s, err := h.working(project)
			if err != nil {
				return err
			}
			defer s.Close()
			return h.apply(ctx, s, all, dryRun)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - (standard input) to read documents from; may be given again")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the documents at the console, and say what would be done")
	projectFlag(cmd.Flags(), &project)
	return cmd
}

// change is what becomes of one document.
type change struct {
	given
	old    api.Object // as it is there
	there  bool
	wanted api.Object // as it would be kept
}

func (h Host) apply(ctx context.Context, s *session, all []given, dryRun bool) error {
	changes, err := h.compare(ctx, s, all)
	if err != nil {
		return err
	}
	done := Done{DryRun: dryRun}
	for i, c := range changes {
		item := Item{target: c.target, Action: c.action(), ResourceVersion: c.old.Metadata.ResourceVersion}
		if !dryRun && item.Action != unchanged {
			if item, err = s.write(ctx, c); err != nil {
				return h.halfway(done, len(changes)-i, c.target, err)
			}
		}
		done.add(item)
	}
	return h.Print(done)
}

// compare has the console check all documents, and says what is there. Whatever is
// wrong with any of them is said before anything changes.
func (h Host) compare(ctx context.Context, s *session, all []given) ([]change, error) {
	var changes []change
	var faults []error
	for _, g := range all {
		c, err := s.compare(ctx, g)
		if client.Is(err, http.StatusUnprocessableEntity) || client.Is(err, http.StatusBadRequest) {
			faults = append(faults, fmt.Errorf("%s: %w", g.from, err))
			continue
		}
		if err != nil {
			return nil, h.explain(err)
		}
		if stale := c.stale(); stale != nil {
			return nil, h.explain(stale)
		}
		changes = append(changes, c)
	}
	if len(faults) > 0 {
		return nil, exit.Refuse("nothing was changed: mend it and give the command again", "%v", errors.Join(faults...))
	}
	return changes, nil
}

func (s *session) compare(ctx context.Context, g given) (change, error) {
	c := change{given: g}
	var err error
	if c.wanted, err = s.Apply(ctx, g.ref(s.Project), g.text, client.How{DryRun: true}); err != nil {
		return c, err
	}
	c.old, err = s.Get(ctx, g.ref(s.Project))
	c.there = err == nil
	if client.Is(err, http.StatusNotFound) {
		err = nil
	}
	return c, err
}

// gone is how a console says that what was to be changed is not there any more.
const gone = "it was deleted"

// stale is the console's answer to a document that somebody else has changed.
func (c change) stale() error {
	if c.revision == "" || c.there && c.revision == c.old.Metadata.ResourceVersion {
		return nil
	}
	now := "it is not there: " + gone
	if c.there {
		now = "it is at " + c.old.Metadata.ResourceVersion
	}
	return &client.Error{Code: http.StatusConflict, Reason: "Conflict", Message: fmt.Sprintf("%s, %s: it says resourceVersion %s, and %s", c.from, c.target, c.revision, now)}
}

func (c change) action() string {
	switch {
	case !c.there:
		return created
	case same(c.old, c.wanted):
		return unchanged
	}
	return configured
}

// same tells whether two objects say the same.
func same(a, b api.Object) bool {
	return bytes.Equal(a.Spec, b.Spec) && maps.Equal(a.Metadata.Labels, b.Metadata.Labels) && maps.Equal(a.Metadata.Annotations, b.Metadata.Annotations)
}

// write makes the change, if nothing has changed since it was compared; else it
// compares again, unless the document itself says what it was made from.
func (s *session) write(ctx context.Context, c change) (Item, error) {
	const tries = 5
	for try := 1; ; try++ {
		text, err := c.at(c.old.Metadata.ResourceVersion)
		if err != nil {
			return Item{}, err
		}
		kept, err := s.Apply(ctx, c.ref(s.Project), text, client.How{Create: !c.there})
		if err == nil {
			return Item{target: c.target, Action: c.action(), ResourceVersion: kept.Metadata.ResourceVersion}, nil
		}
		if !client.Is(err, http.StatusConflict) || c.revision != "" || try == tries {
			return Item{}, err
		}
		if c, err = s.compare(ctx, c.given); err != nil {
			return Item{}, err
		}
		if c.action() == unchanged {
			return Item{target: c.target, Action: unchanged, ResourceVersion: c.old.Metadata.ResourceVersion}, nil
		}
	}
}

// at is the document, made from a revision.
func (c change) at(revision string) ([]byte, error) {
	var o, metadata map[string]json.RawMessage
	if err := json.Unmarshal(c.text, &o); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(o["metadata"], &metadata); err != nil {
		return nil, err
	}
	delete(metadata, "resourceVersion")
	if revision != "" {
		metadata["resourceVersion"] = json.RawMessage(`"` + revision + `"`)
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return nil, err
	}
	o["metadata"] = text
	return json.Marshal(o)
}

// halfway says what was done before something failed, and then that.
func (h Host) halfway(done Done, left int, at target, err error) error {
	if len(done.Items) == 0 {
		return h.explain(err)
	}
	if err := h.Print(done); err != nil {
		return err
	}
	_, hint := exit.Verdict(h.explain(err))
	return &exit.Error{Code: exit.Failed, Err: fmt.Errorf("%s: %w; %d of the documents are as before", at, err, left), Hint: hint}
}

// Item is what became of one document.
type Item struct {
	target
	Action          string
	ResourceVersion string
}

// Done is what a command did with documents.
type Done struct {
	Items  []Item
	DryRun bool
}

func (d *Done) add(i Item) { d.Items = append(d.Items, i) }

// Document implements output.Result.
func (d Done) Document() any {
	type item struct {
		Kind            string `json:"kind"`
		Namespace       string `json:"namespace,omitempty"`
		Name            string `json:"name"`
		Action          string `json:"action"`
		ResourceVersion string `json:"resourceVersion,omitempty"`
	}
	items := []item{}
	for _, i := range d.Items {
		items = append(items, item{i.kind.Name, i.namespace, i.name, i.Action, i.ResourceVersion})
	}
	return map[string]any{"dryRun": d.DryRun, "items": items}
}

// Text implements output.Result.
func (d Done) Text(t *output.Text) {
	tail := ""
	if d.DryRun {
		tail = " (dry run)"
	}
	for _, i := range d.Items {
		t.Line("%s %s%s", i.target, i.Action, tail)
	}
}

// Names implements output.Named.
func (d Done) Names() []string {
	var all []string
	for _, i := range d.Items {
		all = append(all, i.String())
	}
	return all
}
