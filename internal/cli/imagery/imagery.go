// Package imagery is the command line's `images`: where an application's
// container images can be had, and copying them to where the next site is.
package imagery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/point"
)

// Host is what the command line gives its commands.
type Host struct {
	// Bounded ends with the command's time.
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	// Point finds the recovery point that is named, or an application's newest.
	Point func(ctx context.Context, cmd *cobra.Command, a *access.Address, name string) (*point.Manifest, error)
	// Vault opens the vault and names this site.
	Vault   func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, error)
	Cluster func() (client.Client, error)
	Now     func() time.Time
	Print   func(output.Result) error
	Step    func(format string, args ...any)
}

// asked is what the commands share.
type asked struct {
	access.Address
	mirror   string
	insecure []string
	secrets  []string
	dryRun   bool
}

// Command makes `images`.
func Command(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "images APP|POINT",
		Short: "Say where an application's container images can be had, and mirror them",
		Long: `Asks for every image of a recovery point whether this site's nodes have it, whether its registry has it, and with --mirror
whether that registry has a copy. Ask at the site that is to take over, while all is well: an image that can be had nowhere
there keeps its workload from starting. Exit code 4 says that there is such an image.

Nodes name only their fifty largest images unless told otherwise; what they do not name they may have all the same.`,
		Example: `  davit images shop
  davit images shop --mirror registry.west.example.com/davit
  davit images mirror shop --to registry.west.example.com/davit
  davit images pull shop`,
		Args: one,
		RunE: func(cmd *cobra.Command, given []string) error { return h.look(cmd, &o, given[0]) },
	}
	cmd.Flags().StringVar(&o.mirror, "mirror", "", "also ask this mirror, host[:port][/path]")
	o.flags(cmd)
	cmd.AddCommand(mirrorCommand(h), pullCommand(h))
	return cmd
}

func mirrorCommand(h Host) *cobra.Command {
	var o asked
	cmd := &cobra.Command{
		Use:   "mirror APP|POINT --to REGISTRY",
		Short: "Copy an application's images to a registry that survives its site",
		Long: `Copies every image of a recovery point, by digest and for all platforms, to REGISTRY/<its registry>/<its name>. What is
there already is not sent again. Then restore with --mirror-images-from, or tell the container runtime of the nodes that each
registry has a mirror there, as the result lists them. Credentials are those of ~/.docker/config.json and of --pull-secret.`,
		Args: one,
		RunE: func(cmd *cobra.Command, given []string) error { return h.copy(cmd, &o, given[0]) },
	}
	cmd.Flags().StringVar(&o.mirror, "to", "", "where to, host[:port][/path] (required)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be copied, and look whether it could be")
	o.flags(cmd)
	return cmd
}

func one(cmd *cobra.Command, given []string) error {
	if len(given) != 1 {
		return exit.Usage("", "%s takes one APP or POINT, but was given %d arguments", cmd.Name(), len(given))
	}
	return nil
}

func (o *asked) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&o.insecure, "insecure-registry", nil, "registry, host[:port], that is spoken to without TLS")
	cmd.Flags().StringSliceVar(&o.secrets, "pull-secret", nil, "Secret NAMESPACE/NAME of this cluster with credentials for registries")
	o.BreakGlass(cmd.Flags())
}

// registries reads the credentials.
func (h Host) registries(ctx context.Context, o *asked) (images.Registries, error) {
	var chains []authn.Keychain
	for _, secret := range o.secrets {
		chain, err := h.pullSecret(ctx, secret)
		if err != nil {
			return images.Registries{}, err
		}
		chains = append(chains, chain)
	}
	return images.Registries{Keys: images.Keys(chains...), Insecure: o.insecure}, nil
}

func (h Host) pullSecret(ctx context.Context, named string) (authn.Keychain, error) {
	namespace, name, ok := strings.Cut(named, "/")
	if !ok {
		return nil, exit.Usage("write --pull-secret NAMESPACE/NAME", "--pull-secret %q is not valid", named)
	}
	c, err := h.Cluster()
	if err != nil {
		return nil, err
	}
	var secret corev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, fmt.Errorf("read pull secret %s: %w", named, err)
	}
	raw, ok := secret.Data[corev1.DockerConfigJsonKey]
	if !ok {
		return nil, exit.Usage("it must be of type kubernetes.io/dockerconfigjson", "Secret %s holds no credentials for registries", named)
	}
	return images.PullSecret(raw)
}

// nodes are the images that each node of the cluster names. Without a cluster,
// or the right to look at its nodes, there are none.
func (h Host) nodes(ctx context.Context) [][]string {
	c, err := h.Cluster()
	if err != nil {
		return nil
	}
	var list corev1.NodeList
	if err := c.List(ctx, &list); err != nil {
		return nil
	}
	all := make([][]string, 0, len(list.Items))
	for _, node := range list.Items {
		var names []string
		for _, image := range node.Status.Images {
			names = append(names, image.Names...)
		}
		all = append(all, names)
	}
	return all
}

func (h Host) look(cmd *cobra.Command, o *asked, named string) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	own, err := h.registries(ctx, o)
	if err != nil {
		return err
	}
	var mirror *images.Mirror
	if o.mirror != "" {
		mirror = &images.Mirror{Base: o.mirror, Registries: own}
		if err := mirror.Check(); err != nil {
			return exit.AsUsage(err)
		}
	}
	m, err := h.Point(ctx, cmd, &o.Address, named)
	if err != nil {
		return err
	}
	h.Step("asking nodes and registries for %d images", len(m.Images))
	nodes := h.nodes(ctx)
	found := Found{Application: m.Application, Point: m.ID, Nodes: len(nodes), Mirror: o.mirror, Images: []Image{}}
	for _, w := range images.Look(ctx, m.Images, nodes, own, mirror) {
		found.add(w)
	}
	if err := h.Print(found); err != nil {
		return err
	}
	if found.missing() > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

func (h Host) copy(cmd *cobra.Command, o *asked, named string) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if o.mirror == "" {
		return exit.Usage("such as --to registry.example.com/davit", "--to is missing")
	}
	from, err := h.registries(ctx, o)
	if err != nil {
		return err
	}
	mirror := images.Mirror{Base: o.mirror, Registries: from}
	if err := mirror.Check(); err != nil {
		return exit.AsUsage(err)
	}
	m, err := h.Point(ctx, cmd, &o.Address, named)
	if err != nil {
		return err
	}
	done := Copied{Application: m.Application, Point: m.ID, Mirror: o.mirror, DryRun: o.dryRun, Images: []Copy{}}
	for i, image := range m.Images {
		h.Step("image %d of %d: %s", i+1, len(m.Images), image.Reference)
		done.Images = append(done.Images, h.one(ctx, image, mirror, from, o.dryRun))
	}
	if err := h.Print(done); err != nil {
		return err
	}
	if failed := done.failed(); failed > 0 {
		return exit.Hint(fmt.Errorf("%d of %d images were not copied", failed, len(m.Images)),
			"mend what is said of each and give the command again: it goes on where it ended")
	}
	return nil
}

// one copies an image and says what became of it.
func (h Host) one(ctx context.Context, image point.Image, mirror images.Mirror, from images.Registries, dryRun bool) Copy {
	c := Copy{Image: image.Reference, Digest: image.Digest}
	if name, err := mirror.Name(image); err == nil {
		c.Copy = name
	}
	switch err := ctx.Err(); {
	case err != nil:
		c.State, c.Why = Failed, err.Error()
		return c
	case dryRun:
		c.State, c.Why = wouldCopy(ctx, image, mirror, from)
		return c
	}
	done, err := mirror.Copy(ctx, image, from)
	switch {
	case err != nil:
		c.State, c.Why = Failed, reason(err)
	case done.Present:
		c.State = There
	default:
		c.State = Done
	}
	return c
}

func wouldCopy(ctx context.Context, image point.Image, mirror images.Mirror, from images.Registries) (state, why string) {
	if image.Digest == "" {
		return Failed, reason(images.ErrNoDigest)
	}
	if mirror.Has(ctx, image) == nil {
		return There, ""
	}
	if err := from.Has(ctx, image); err != nil {
		return Failed, reason(err)
	}
	return Would, ""
}

// reason adds what a person can do.
func reason(err error) string {
	switch {
	case errors.Is(err, images.ErrNoDigest):
		return err.Error() + ": its nodes did not get it from a registry; push it to one and let the workload name that"
	case errors.Is(err, images.ErrDenied):
		return err.Error() + ": give --pull-secret, or log in so that ~/.docker/config.json has it"
	}
	return err.Error()
}
