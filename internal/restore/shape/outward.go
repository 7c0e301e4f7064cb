package shape

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
)

// outward are groups whose objects reach out of a copy: they bring traffic to
// it, order certificates and names for it, or have it replaced by what git holds.
var outward = []string{
	GroupGateway, "networking.istio.io", "security.istio.io", "traefik.io", "traefik.containo.us", "projectcontour.io", "route.openshift.io",
	"configuration.konghq.com", "getambassador.io", "apisix.apache.org", "k8s.nginx.org", "elbv2.k8s.aws",
	"externaldns.k8s.io", "cert-manager.io", "acme.cert-manager.io", "argoproj.io",
	"source.toolkit.fluxcd.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io",
	"cilium.io", "crd.projectcalico.org", "projectcalico.org", "policy.networking.k8s.io",
}

// standing are groups whose objects stand for something outside of the cluster: a bucket,
// a database, a machine. Their controllers, which no copy's network keeps in, take the copy
// of one for the same thing, and delete that when the copy goes. A dot begins the end of a
// group's name.
var standing = []string{
	".services.k8s.aws", ".cnrm.cloud.google.com", ".azure.com", ".crossplane.io", ".upbound.io",
	"cluster.x-k8s.io", ".cluster.x-k8s.io", "metal3.io",
	"app.terraform.io", "infra.contrib.fluxcd.io", "pulumi.com", "atlas.mongodb.com",
}

// composed ends the finalizers of what is made up of such things, whose groups people choose.
const composed = ".crossplane.io"

const standsFor = "stands for something outside of the cluster, which the original uses"

// OutsideOfCopy says why no object of a kind comes into an isolated copy, or
// nothing. Cluster-scoped objects are the original's: a copy uses what is there.
func OutsideOfCopy(res point.Resource) string {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	switch {
	case kind == KindNamespace:
		return ""
	case !res.Namespaced:
		return "cluster-scoped: a copy uses what is there"
	case kind.Group == GroupNetworking && kind.Kind == "NetworkPolicy":
		return "a copy has a policy of its own"
	case kind.Group == GroupNetworking, slices.Contains(outward, kind.Group):
		return "reaches out of the copy"
	case slices.ContainsFunc(standing, func(group string) bool {
		return group == kind.Group || group[0] == '.' && strings.HasSuffix(kind.Group, group)
	}), kind == (schema.GroupKind{Group: "external-secrets.io", Kind: "PushSecret"}):
		return standsFor
	}
	return ""
}

// OutsideByHead says why an object does not come into an isolated copy, whatever its
// kind, or nothing.
func OutsideByHead(h Head) string {
	for _, f := range h.Metadata.Finalizers {
		if host, _, _ := strings.Cut(f, "/"); strings.HasSuffix(host, composed) {
			return standsFor
		}
	}
	return ""
}
