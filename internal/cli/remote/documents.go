package remote

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/console/document"
)

// given is one document that a person gives.
type given struct {
	target
	// revision is the resourceVersion in it.
	revision string
	text     []byte // as JSON
	from     string // for messages
}

// maxFile bounds what is read of one file.
const maxFile = 64 << 20

// read reads all documents of files, directories and standard input ("-").
func (h Host) read(names []string) ([]given, error) {
	if len(names) == 0 {
		return nil, exit.Usage("a file, a directory, or - for standard input", "-f is missing")
	}
	var all []given
	for _, name := range names {
		files, err := expand(name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			more, err := h.readFile(file)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	if len(all) == 0 {
		return nil, exit.Usage("", "there is no document in %s", strings.Join(names, ", "))
	}
	seen := map[target]string{}
	for _, g := range all {
		if first, twice := seen[g.target]; twice {
			return nil, exit.Usage("", "%s: %s is also in %s: which of them is meant?", g.from, g.target, first)
		}
		seen[g.target] = g.from
	}
	return all, nil
}

// expand lists the files that a name stands for. A directory is not searched
// deeper.
func expand(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, exit.AsUsage(fmt.Errorf("read documents: %w", err))
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, exit.AsUsage(fmt.Errorf("read documents: %w", err))
	}
	var files []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	return files, nil
}

func (h Host) readFile(name string) ([]given, error) {
	in := h.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, exit.AsUsage(fmt.Errorf("read documents: %w", err))
		}
		defer f.Close()
		in = f
	} else {
		name = "standard input"
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	if len(text) > maxFile {
		return nil, exit.Usage("", "%s has more than %d bytes", name, maxFile)
	}
	all, err := split(text, name)
	if err != nil && !exit.IsUsage(err) {
		err = exit.AsUsage(err)
	}
	return all, err
}

// split reads the documents of one text.
func split(text []byte, name string) (all []given, err error) {
	documents := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		one, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		from := fmt.Sprintf("%s, document %d", name, n)
		if err == nil {
			one, err = yaml.YAMLToJSONStrict(one)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		if string(one) == "null" { // comments alone
			continue
		}
		more, err := parse(one, from)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
}

// head is what of a document says where it belongs.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string `json:"name"`
		Namespace       string `json:"namespace"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// parse reads one document, or a list of them as `get -o yaml` prints it.
func parse(text []byte, from string) ([]given, error) {
	var h head
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if strings.HasSuffix(h.Kind, "List") {
		var all []given
		for i, item := range h.Items {
			more, err := parse(item, fmt.Sprintf("%s, item %d", from, i+1))
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		return all, nil
	}
	k, ok := document.Find(h.Kind)
	if !ok || k.Name != h.Kind || h.APIVersion != v1alpha1.GroupVersion.String() {
		return nil, exit.Usage("apply others to a cluster, with kubectl", "%s: it is a %q of %q, and a console keeps only %s of %s", from, h.Kind, h.APIVersion, strings.Join(kindNames(), ", "), v1alpha1.GroupVersion)
	}
	if h.Metadata.Name == "" {
		return nil, fmt.Errorf("%s: metadata.name is missing", from)
	}
	g := given{target: target{kind: k, namespace: h.Metadata.Namespace, name: h.Metadata.Name}, revision: h.Metadata.ResourceVersion, text: text, from: from}
	if k.Namespaced && g.namespace == "" {
		g.namespace = v1alpha1.SystemNamespace
	}
	if !k.Namespaced && g.namespace != "" {
		return nil, fmt.Errorf("%s: a %s has no namespace", from, k.Name)
	}
	return []given{g}, nil
}
