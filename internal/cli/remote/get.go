package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/document"
)

func getCommand(h Host) *cobra.Command {
	var project, namespace, site string
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND...] | KIND NAME... | KIND/NAME...",
		Short: "Show documents that a console keeps",
		Long: `Shows applications, policies and plans that a console keeps, as tables, or with -o yaml, json or name. "all" is all kinds. What a
YAML or JSON output holds can be given to "davit apply -f" again.

With --site it shows those instead that git or people make at a site (at all of them: --site '*'), as its agent says; so it does of a name
that the console does not keep. The console changes none of them.

Sites, runs, points and restores are shown in the same forms, as the console knows them: they are what is, and nothing to apply.`,
		Example: `  davit --console https://console.example.com:8443 get applications
  davit get app shop -o yaml
  davit get all -o name`,
		ValidArgs: append(kindNames(), "all", "sites", "runs", "points", "restores"),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Looking(cmd)
			defer cancel()
			if len(given) == 1 && given[0] == "all" {
				given = []string{strings.Join(kindNames(), ",")}
			}
			kind, names, seen, err := askedSeen(given)
			if err != nil {
				return err
			}
			var all []target
			if !seen {
				if all, err = targets(given, namespace); err != nil {
					return err
				}
			}
			s, err := h.working(project)
			if err != nil {
				return err
			}
			defer s.Close()
			if seen {
				return h.getSeen(ctx, s, kind, names)
			}
			return h.get(ctx, s, site, all)
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "show what git or people make at this `SITE`, not the console; '*' is all")
	projectFlag(cmd.Flags(), &project)
	namespaceFlag(cmd.Flags(), &namespace)
	return cmd
}

func (h Host) get(ctx context.Context, s *session, site string, all []target) error {
	found := Found{now: h.Now(), one: len(all) == 1 && all[0].name != "", there: site != ""}
	for _, t := range all {
		ref := t.ref(s.Project)
		if ref.Site = site; t.name != "" {
			o, err := s.Get(ctx, ref)
			if client.Is(err, http.StatusNotFound) && site == "" { // git or people may make it at a site
				ref.Site = "*"
				if there, none := s.Get(ctx, ref); !client.Is(none, http.StatusNotFound) {
					o, err = there, none
				}
			}
			if err != nil {
				return h.explain(err)
			}
			found.Items = append(found.Items, o)
			continue
		}
		list, err := s.List(ctx, ref)
		if err != nil {
			return h.explain(err)
		}
		found.Items = append(found.Items, list.Items...)
	}
	if err := h.Print(found); err != nil {
		return err
	}
	if len(found.Items) == 0 && slices.Contains([]output.Format{output.Table, output.Wide}, h.Format()) {
		fmt.Fprintf(h.Err, "project %s has none of them\n", s.Project)
	}
	return nil
}

// Found are the documents that `get` found.
type Found struct {
	Items []api.Object
	one   bool // a single one was asked for
	there bool // they are of sites, and not the console's
	now   time.Time
}

// Document implements output.Result: the object, or a list of objects.
func (f Found) Document() any {
	if f.one && len(f.Items) == 1 {
		return f.Items[0]
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "items": append([]api.Object{}, f.Items...)}
}

// Names implements output.Named.
func (f Found) Names() []string {
	var all []string
	for _, o := range f.Items {
		all = append(all, nameOf(o))
	}
	return all
}

func nameOf(o api.Object) string {
	k, ok := document.Find(o.Kind)
	if !ok {
		return o.Kind + "/" + o.Metadata.Name
	}
	return target{kind: k, name: o.Metadata.Name}.String()
}

// Text implements output.Result: a table for each kind.
func (f Found) Text(t *output.Text) {
	for _, k := range document.Kinds() {
		var rows [][]string
		for _, o := range f.Items {
			if o.Kind == k.Name {
				cells := row(o, f.now)
				if f.there {
					cells = append([]string{o.Metadata.Annotations[api.AnnotationAt], o.Metadata.Annotations[api.AnnotationMadeBy]}, cells...)
				}
				rows = append(rows, cells)
			}
		}
		if len(rows) == 0 {
			continue
		}
		if t.String() != "" {
			t.Line("")
		}
		head := columns(k)
		if f.there {
			head = append(output.Columns("SITE", "MADE BY"), head...)
		}
		t.Table("", head, rows)
	}
}

// columns are those of a kind's table; row makes what belongs below.
func columns(k *document.Kind) []output.Column {
	var names []string
	if k.Namespaced {
		names = append(names, "NAMESPACE")
	}
	names = append(names, "NAME")
	switch k.Name {
	case "Application":
		names = append(names, "VAULT", "POLICY", "NAMESPACES")
	case "ProtectionPolicy":
		names = append(names, "SCHEDULE", "RPO", "RTO", "SUSPENDED")
	case "RecoveryPlan":
		names = append(names, ">APPLICATIONS", "SITES")
	}
	return output.Columns(append(names, "AGE", "+>GENERATION", "+>VERSION", "+LABELS")...)
}

// spec is what tables show of all kinds' specs.
type spec struct {
	Vault      string   `json:"vault"`
	Policy     string   `json:"policy"`
	Namespaces []string `json:"namespaces"`
	Schedule   struct {
		Every string `json:"every"`
		Cron  string `json:"cron"`
	} `json:"schedule"`
	Objectives struct {
		RPO string `json:"rpo"`
		RTO string `json:"rto"`
	} `json:"objectives"`
	Suspend      bool              `json:"suspend"`
	Applications []json.RawMessage `json:"applications"`
	Sites        []struct {
		Name string `json:"name"`
	} `json:"sites"`
}

func row(o api.Object, now time.Time) []string {
	var s spec
	if err := json.Unmarshal(o.Spec, &s); err != nil {
		s = spec{} // -o yaml shows what it is
	}
	var cells []string
	if o.Metadata.Namespace != "" {
		cells = append(cells, o.Metadata.Namespace)
	}
	cells = append(cells, o.Metadata.Name)
	switch o.Kind {
	case "Application":
		cells = append(cells, s.Vault, s.Policy, strings.Join(s.Namespaces, ","))
	case "ProtectionPolicy":
		suspended := ""
		if s.Suspend {
			suspended = "yes"
		}
		cells = append(cells, s.Schedule.Every+s.Schedule.Cron, s.Objectives.RPO, s.Objectives.RTO, suspended)
	case "RecoveryPlan":
		var sites []string
		for _, site := range s.Sites {
			sites = append(sites, site.Name)
		}
		cells = append(cells, fmt.Sprint(len(s.Applications)), strings.Join(sites, ","))
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(o.Metadata.Labels)) {
		labels = append(labels, key+"="+o.Metadata.Labels[key])
	}
	return append(cells, output.Age(o.Metadata.CreationTimestamp, now), fmt.Sprint(o.Metadata.Generation), o.Metadata.ResourceVersion, strings.Join(labels, ","))
}

// one checks that a single kind is named, and at most one document of it.
func one(given []string, namespace string) (target, error) {
	all, err := targets(given, namespace)
	if err != nil {
		return target{}, err
	}
	if len(all) != 1 {
		return target{}, exit.Usage("", "one kind, or one document, at a time")
	}
	if len(given) == 1 && !strings.Contains(given[0], "/") {
		all[0].name = ""
	}
	return all[0], nil
}
