// Command shop-deploy applies the shop to a cluster, part by part, and gives the object that another one owns its
// owner's UID.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"davit.dev/davit/testbed/shop/deploy"
)

// cluster is where kubectl is pointed at.
type cluster struct {
	kubectl, kubeconfig string
}

func main() {
	var p deploy.Params
	var c cluster
	flag.StringVar(&c.kubectl, "kubectl", "kubectl", "path of kubectl")
	flag.StringVar(&c.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "path of the kubeconfig")
	flag.StringVar(&p.DatabaseImage, "db-image", "", "the image shop-db")
	flag.StringVar(&p.AppImage, "app-image", "", "the image shop-app")
	flag.StringVar(&p.LedgerURL, "ledger", "", "URL of the ledger; empty: none")
	flag.StringVar(&p.Rate, "rate", "", "orders per second")
	flag.StringVar(&p.StorageClass, "storage-class", "", "StorageClass of the database; empty: the default")
	flag.StringVar(&p.VolumeSize, "volume-size", "", "size of the database's volume")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.deploy(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "shop-deploy:", err)
		os.Exit(1)
	}
}

func (c cluster) deploy(ctx context.Context, p deploy.Params) error {
	p = p.Defaults()
	parts, err := deploy.Render(p)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := c.apply(ctx, part.YAML); err != nil {
			return fmt.Errorf("apply part %s: %w", part.Name, err)
		}
		if part.Name != deploy.Cluster {
			continue
		}
		_, err := c.run(ctx, nil, "wait", "--for=condition=Established", "--timeout=60s",
			"crd/warehouses.shop.example.com", "crd/shelves.shop.example.com")
		if err != nil {
			return err
		}
	}
	uid, err := c.run(ctx, nil, "-n", p.Namespace, "get", deploy.Owner, "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return err
	}
	owned, err := deploy.RenderOwned(p, uid)
	if err != nil {
		return err
	}
	return c.apply(ctx, owned)
}

func (c cluster) apply(ctx context.Context, yaml []byte) error {
	out, err := c.run(ctx, yaml, "apply", "--server-side", "--force-conflicts", "-f", "-")
	fmt.Print(out)
	return err
}

func (c cluster) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("run kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
