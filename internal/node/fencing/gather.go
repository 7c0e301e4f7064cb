package fencing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/selection"
	"davit.dev/davit/internal/warden"
)

// ownerFor is how long a workload's labels are not read again.
const ownerFor = 2 * time.Minute

// seen is what the cluster said.
type seen struct {
	cluster      string
	applications []sighted
	world        json.RawMessage
}

type sighted struct {
	name       string
	document   json.RawMessage
	superseded *fence.Answer // what the agent read in the vault
	leased     *fence.Terms  // of this site's own epoch, as the agent read them
	epoch      int64         // that epoch
	returned   int64         // the epoch of this site's own of which a run says that it gives it back
	promised   int64         // the epoch for which the agent says that peers may be asked, as the vault says that every node keeps it
	active     int64         // the epoch by which the agent says that this site may write; 0: it does not
}

// owner is a workload that made a pod.
type owner struct {
	object selection.Object
	read   time.Duration
}

// gather reads what is watched.
func (k *Keeper) gather(ctx context.Context) (*seen, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	s := &seen{}
	var apps v1alpha1.ApplicationList
	var namespaces corev1.NamespaceList
	var pods corev1.PodList
	for what, list := range map[string]client.ObjectList{"applications": &apps, "namespaces": &namespaces, "pods of this node": &pods} {
		if err := k.opts.Cache.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %s: %w", what, err)
		}
	}
	for i := range apps.Items {
		one, err := sight(&apps.Items[i])
		if err != nil {
			return nil, err
		}
		s.applications = append(s.applications, one)
	}
	w := warden.World{Namespaces: map[string]labels.Set{}, Pods: map[string]selection.Object{}}
	for _, ns := range namespaces.Items {
		w.Namespaces[ns.Name] = ns.Labels
		if ns.Name == metav1.NamespaceSystem {
			s.cluster = string(ns.UID)
		}
	}
	made := map[string]selection.Object{}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName == k.opts.Node {
			pod := object(p, "", "Pod")
			k.owned(ctx, pod, made)
			w.Pods[pod.UID] = pod
		}
	}
	for _, o := range made {
		w.Owners = append(w.Owners, o)
	}
	slices.SortFunc(w.Owners, func(a, b selection.Object) int { return cmp.Compare(a.Title(), b.Title()) })
	var err error
	if w.Sandboxes, err = k.sandboxes(ctx, namespaces.Items); err != nil {
		return nil, err
	}
	s.world, err = json.Marshal(w)
	return s, err
}

// sight keeps of an Application what decides what it covers.
func sight(app *v1alpha1.Application) (sighted, error) {
	document, err := json.Marshal(&v1alpha1.Application{ObjectMeta: trim(app.ObjectMeta), Spec: app.Spec})
	if err != nil {
		return sighted{}, fmt.Errorf("encode application %s: %w", app.Name, err)
	}
	one := sighted{name: app.VaultName(), document: document}
	one.returned, _ = strconv.ParseInt(app.Annotations[fence.AnnotationReturned], 10, 64) // what is no number was not written by a run
	if st := &app.Status; st.Role == v1alpha1.RoleSuperseded && st.HeldEpoch > 0 && st.HeldEpoch < st.Epoch {
		one.superseded = &fence.Answer{Newest: st.Epoch, Held: st.HeldEpoch, Holder: "site " + st.EpochSite}
	}
	if st := &app.Status; st.Role == v1alpha1.RoleActive && st.HeldEpoch == st.Epoch {
		one.active = st.Epoch
	}
	if l := app.Status.Lease; l != nil && l.Lease.Duration > 0 {
		one.epoch, one.leased = l.Epoch, &fence.Terms{Lease: l.Lease.Duration, Bound: max(l.Bound.Duration, 0), Drift: max(l.DriftPPM, 0)}
		if l.Kept && len(l.Peers) > 0 {
			one.promised = l.Epoch
		}
	}
	return one, nil
}

func object(o metav1.Object, group, kind string) selection.Object {
	out := selection.Object{Group: group, Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()), Labels: o.GetLabels(), Replicas: -1}
	if c := metav1.GetControllerOf(o); c != nil {
		gv, _ := schema.ParseGroupVersion(c.APIVersion) // one that cannot be read names no group
		out.Owner = &selection.Owner{Group: gv.Group, Kind: c.Kind, Name: c.Name, UID: string(c.UID)}
	}
	return out
}

// readable are the kinds of workloads that the node process may read.
var readable = map[string]string{
	"apps/Deployment": "v1", "apps/ReplicaSet": "v1", "apps/StatefulSet": "v1", "apps/DaemonSet": "v1",
	"batch/Job": "v1", "batch/CronJob": "v1", "/ReplicationController": "v1",
}

// owned adds the workloads that made an object. Each is asked for once; those
// that cannot be read count by their names.
func (k *Keeper) owned(ctx context.Context, o selection.Object, made map[string]selection.Object) {
	for steps := 0; o.Owner != nil && steps < 8; steps++ {
		version, known := readable[o.Owner.Group+"/"+o.Owner.Kind]
		if !known {
			return
		}
		up, err := k.owner(ctx, o, version)
		if err != nil {
			return
		}
		made[up.UID] = up
		o = up
	}
}

func (k *Keeper) owner(ctx context.Context, child selection.Object, version string) (selection.Object, error) {
	by := child.Owner
	kept, known := k.owners[by.UID]
	if known && k.opts.Uptime()-kept.read < ownerFor {
		return kept.object, nil
	}
	var m metav1.PartialObjectMetadata
	m.SetGroupVersionKind(schema.GroupVersionKind{Group: by.Group, Version: version, Kind: by.Kind})
	err := k.opts.Reader.Get(ctx, client.ObjectKey{Namespace: child.Namespace, Name: by.Name}, &m)
	if err == nil && string(m.UID) != by.UID {
		err = errors.New("another of its name")
	}
	if err != nil {
		if known {
			return kept.object, nil
		}
		return selection.Object{}, err
	}
	o := object(&m, by.Group, by.Kind)
	k.owners[by.UID] = owner{o, k.opts.Uptime()}
	return o, nil
}

// sandboxes are the copies in the cluster, with whom their pods may speak to.
func (k *Keeper) sandboxes(ctx context.Context, all []corev1.Namespace) ([]warden.Sandbox, error) {
	by := map[string]*warden.Sandbox{}
	test := map[string]bool{}
	for _, ns := range all {
		name := cmp.Or(ns.Labels[v1alpha1.LabelSandbox], ns.Labels[v1alpha1.LabelRestoreTest])
		if name == "" {
			continue
		}
		if by[name] == nil {
			by[name] = &warden.Sandbox{Name: name}
		}
		by[name].Namespaces = append(by[name].Namespaces, ns.Name)
		test[name] = test[name] || ns.Labels[v1alpha1.LabelSandbox] == ""
	}
	var out []warden.Sandbox
	for name, s := range by {
		slices.Sort(s.Namespaces)
		for _, ns := range s.Namespaces {
			peers, err := k.peers(ctx, ns)
			if err != nil {
				return nil, err
			}
			s.Peers = append(s.Peers, peers...)
		}
		slices.SortFunc(s.Peers, netip.Addr.Compare)
		s.Peers = slices.Compact(s.Peers)
		if test[name] { // what is restored for a test may ask the API server, as far as its rights go
			servers, err := k.servers(ctx)
			if err != nil {
				return nil, err
			}
			s.Servers = servers
		}
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b warden.Sandbox) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// peers are the addresses of a namespace's pods and services. A pod in the
// node's network has the node's address, which is nobody's peer.
func (k *Keeper) peers(ctx context.Context, namespace string) ([]netip.Addr, error) {
	var pods corev1.PodList
	var services corev1.ServiceList
	if err := k.opts.Reader.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list pods of sandbox: %w", err)
	}
	if err := k.opts.Reader.List(ctx, &services, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list services of sandbox: %w", err)
	}
	var all []netip.Addr
	add := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a.Unmap())
		}
	}
	for i := range pods.Items {
		if !pods.Items[i].Spec.HostNetwork {
			for _, ip := range pods.Items[i].Status.PodIPs {
				add(ip.IP)
			}
		}
	}
	for i := range services.Items {
		for _, ip := range services.Items[i].Spec.ClusterIPs {
			add(ip)
		}
	}
	return all, nil
}

// servers are the addresses of the API server.
func (k *Keeper) servers(ctx context.Context) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	add := func(text string, port int32) {
		if a, err := netip.ParseAddr(text); err == nil && port > 0 && port < 1<<16 {
			all = append(all, netip.AddrPortFrom(a.Unmap(), uint16(port)))
		}
	}
	var service corev1.Service
	if err := k.opts.Reader.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, &service); err != nil {
		return nil, fmt.Errorf("look for the API server's address: %w", err)
	}
	for _, p := range service.Spec.Ports {
		for _, ip := range service.Spec.ClusterIPs {
			add(ip, p.Port)
		}
	}
	var slicesOf discoveryv1.EndpointSliceList
	if err := k.opts.Reader.List(ctx, &slicesOf, client.InNamespace(metav1.NamespaceDefault), client.MatchingLabels{discoveryv1.LabelServiceName: "kubernetes"}); err != nil {
		return nil, fmt.Errorf("look for the API server's addresses: %w", err)
	}
	for i := range slicesOf.Items {
		for _, p := range slicesOf.Items[i].Ports {
			for _, e := range slicesOf.Items[i].Endpoints {
				for _, ip := range e.Addresses {
					if p.Port != nil {
						add(ip, *p.Port)
					}
				}
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all), nil
}
