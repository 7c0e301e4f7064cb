// Package deploy holds the manifests of the storage driver.
package deploy

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed *.yaml
var files embed.FS

//go:embed crd/snapshotmetadataservices.yaml
var metadataCRD []byte

// MetadataCRD defines the objects by which drivers say where they tell which blocks were changed.
func MetadataCRD() []byte { return metadataCRD }

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "*.yaml"))

// socketRoom is what follows the kubelet's root in the longest socket path, "/plugins_registry/<driver>-reg.sock"; a
// path of a unix socket may have 107 bytes.
const (
	socketRoom = len("/plugins_registry/reflink.csi.davit.dev-reg.sock")
	socketMax  = 107
)

// Params place the driver in one site.
type Params struct {
	Image       string
	Namespace   string
	KubeletRoot string
	StateDir    string
	OuterBytes  int64
	// NodeName pins the driver to one node; empty: every node.
	NodeName string
	// GroupNode is the one node whose volumes can be cut in groups; empty: none.
	GroupNode string
}

// Driver renders everything but the CRDs.
func Driver(p Params) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, name := range []string{"rbac.yaml", "driver.yaml", "snapshot-controller.yaml", "classes.yaml"} {
		out.WriteString("---\n")
		if err := templates.ExecuteTemplate(&out, name, p); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
	}
	return out.Bytes(), nil
}

func (p Params) check() error {
	var errs []error
	for what, path := range map[string]string{"kubelet root": p.KubeletRoot, "state directory": p.StateDir} {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\"\n{}") {
			errs = append(errs, fmt.Errorf("check %s %q: give an absolute path", what, path))
		}
	}
	if len(p.KubeletRoot) > socketMax-socketRoom {
		errs = append(errs, fmt.Errorf("check kubelet root %q: socket paths below it would be too long; use at most %d bytes",
			p.KubeletRoot, socketMax-socketRoom))
	}
	if p.Image == "" || p.Namespace == "" {
		errs = append(errs, errors.New("check parameters: image and namespace are needed"))
	}
	return errors.Join(errs...)
}
