// Package deploy holds the manifests of the shop. They are applied in the order of Parts: CRDs before what they
// define, and last the object that another one owns, once the owner has its UID.
package deploy

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"text/template"
)

//go:embed *.yaml
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "*.yaml"))

// Params fill the manifests. Zero values mean the defaults that Defaults gives.
type Params struct {
	Namespace     string // shop
	DatabaseImage string // needed: the image shop-db
	AppImage      string // needed: the image shop-app
	LedgerURL     string // of the ledger outside the cluster; empty: the writer reports to nobody
	Rate          string // orders per second, 50
	Password      string // of the database
	StorageClass  string // empty: the cluster's default
	VolumeSize    string // 1Gi
	NodePort      int    // of the Service web, 30080
	Host          string // of the Ingress, shop.example.com
}

// Defaults fills what is empty and can be.
func (p Params) Defaults() Params {
	for value, preset := range map[*string]string{
		&p.Namespace: "shop", &p.Rate: "50", &p.Password: "correct horse battery staple",
		&p.VolumeSize: "1Gi", &p.Host: "shop.example.com",
	} {
		if *value == "" {
			*value = preset
		}
	}
	if p.NodePort == 0 {
		p.NodePort = 30080
	}
	return p
}

// Part is a piece of the shop that is applied as a whole.
type Part struct {
	Name string
	YAML []byte
}

// Cluster is the first part: the namespace and the cluster-scoped objects. Wait until its CRDs are established.
const Cluster = "cluster"

// Namespaced is the second part: everything in the namespace but what is owned.
const Namespaced = "namespaced"

// Owner is the object whose UID RenderOwned needs, as kubectl names it.
const Owner = "warehouses.shop.example.com/harbour"

// Render returns the parts in the order in which to apply them. The object that RenderOwned makes comes after them.
func Render(p Params) ([]Part, error) {
	p = p.Defaults()
	if p.DatabaseImage == "" || p.AppImage == "" {
		return nil, errors.New("render shop: the images shop-db and shop-app are needed")
	}
	cluster, err := execute(p, "namespace.yaml", "cluster.yaml")
	if err != nil {
		return nil, err
	}
	namespaced, err := execute(p, "config.yaml", "database.yaml", "app.yaml", "custom.yaml")
	if err != nil {
		return nil, err
	}
	return []Part{{Cluster, cluster}, {Namespaced, namespaced}}, nil
}

// RenderOwned returns the custom resource that belongs to Owner.
func RenderOwned(p Params, ownerUID string) ([]byte, error) {
	if ownerUID == "" {
		return nil, errors.New("render owned object: the owner's UID is needed; read it after applying the other parts")
	}
	return execute(struct {
		Params
		OwnerUID string
	}{p.Defaults(), ownerUID}, "owned.yaml")
}

func execute(data any, names ...string) ([]byte, error) {
	var out bytes.Buffer
	for _, name := range names {
		out.WriteString("---\n")
		if err := templates.ExecuteTemplate(&out, name, data); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
	}
	return out.Bytes(), nil
}
