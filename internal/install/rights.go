package install

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"davit.dev/davit/api/v1alpha1"
)

// ImpersonatorName is a ClusterRole that nobody holds by default. Bound to
// davit-agent by a RoleBinding in a namespace, it lets Restore objects there
// name that namespace's own service accounts.
const ImpersonatorName = "davit-restore-as"

// Names of ClusterRoles for people, which nobody holds by default. Bound with
// resourceNames of one's own making, their verbs can be given for single plans.
const (
	// OperatorName may write plans, order runs and steer them.
	OperatorName = "davit-operator"
	// ApproverName may approve runs.
	ApproverName = "davit-approver"
)

// Names of ClusterRoles that those have who steer and approve runs at a console
// ([v1alpha1.ConsoleGroup]): no more than that.
const (
	ConsoleSteererName  = "davit-console-steerer"
	ConsoleApproverName = "davit-console-approver"
)

// Verbs, spelled out: no account of Davit's is given "*".
var (
	readVerbs  = []string{"get", "list", "watch"}
	writeVerbs = []string{"create", "update", "patch", "delete"}
	allVerbs   = append(append([]string{}, readVerbs...), writeVerbs...)
)

func accounts(opts Options) []runtime.Object {
	var out []runtime.Object
	for _, name := range []string{AgentName, NodeName, CaptureName, RestoreName} {
		no := false
		account := &corev1.ServiceAccount{ObjectMeta: systemMeta(name), AutomountServiceAccountToken: &no}
		for _, secret := range opts.ImagePullSecrets {
			account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
		}
		out = append(out, account)
	}
	return out
}

// roles returns every account's rights: one ClusterRole for what is needed
// anywhere, one Role for what is needed in davit-system only.
func roles() []runtime.Object {
	var out []runtime.Object
	out = append(out, grant(AgentName, agentAnywhere(), agentAtHome())...)
	out = append(out, grant(NodeName, nodeAnywhere(), nodeAtHome())...)
	out = append(out, grant(CaptureName, captureAnywhere(), captureAtHome())...)
	out = append(out, grant(RestoreName, restoreAnywhere(), nil)...)
	out = append(out, &rbacv1.ClusterRole{ObjectMeta: clusterMeta(ImpersonatorName), Rules: []rbacv1.PolicyRule{
		rule(verbs("impersonate"), "", "serviceaccounts"),
	}})
	return append(out, people()...)
}

// people are the roles of those who look after plans. The verbs approve and
// steer mean something to Davit alone.
func people() []runtime.Object {
	group := v1alpha1.GroupVersion.Group
	return append([]runtime.Object{
		&rbacv1.ClusterRole{ObjectMeta: clusterMeta(OperatorName), Rules: []rbacv1.PolicyRule{
			rule(allVerbs, group, "recoveryplans", "runs"),
			rule(verbs(v1alpha1.VerbSteer), group, "recoveryplans"),
			rule(readVerbs, group, "sites", "vaults", "applications", "recoverypoints"),
		}},
		&rbacv1.ClusterRole{ObjectMeta: clusterMeta(ApproverName), Rules: []rbacv1.PolicyRule{
			rule(readVerbs, group, "recoveryplans", "runs"),
			rule(verbs(v1alpha1.VerbApprove), group, "recoveryplans"),
		}},
	}, append(atConsole(ConsoleSteererName, v1alpha1.VerbSteer, "operator", "recoverer"), atConsole(ConsoleApproverName, v1alpha1.VerbApprove, "recoverer")...)...)
}

// atConsole lets those do something with runs who have one of the roles at a console.
// No cluster's login gives these groups: the agent asks about them.
func atConsole(name, verb string, consoleRoles ...string) []runtime.Object {
	var subjects []rbacv1.Subject
	for _, r := range consoleRoles {
		subjects = append(subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: v1alpha1.ConsoleGroup + r})
	}
	return []runtime.Object{
		&rbacv1.ClusterRole{ObjectMeta: clusterMeta(name), Rules: []rbacv1.PolicyRule{rule(verbs(verb), v1alpha1.GroupVersion.Group, "recoveryplans")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: clusterMeta(name), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: subjects},
	}
}

func grant(account string, anywhere, atHome []rbacv1.PolicyRule) []runtime.Object {
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.SystemNamespace, Name: account}}
	out := []runtime.Object{
		&rbacv1.ClusterRole{ObjectMeta: clusterMeta(account), Rules: anywhere},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: clusterMeta(account),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
			Subjects:   subjects,
		},
	}
	if atHome == nil {
		return out
	}
	return append(out,
		&rbacv1.Role{ObjectMeta: systemMeta(account), Rules: atHome},
		&rbacv1.RoleBinding{
			ObjectMeta: systemMeta(account),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
			Subjects:   subjects,
		})
}

// agentAnywhere: its own kinds, events, and what fencing a superseded
// application takes: scale to zero, suspend, send to no node, delete pods.
func agentAnywhere() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(allVerbs, v1alpha1.GroupVersion.Group, "vaults", "sites", "applications", "protectionpolicies", "recoverypoints", "restores", "recoveryplans", "runs"),
		rule(verbs("get", "update", "patch"), v1alpha1.GroupVersion.Group, "vaults/status", "sites/status", "applications/status", "recoverypoints/status", "restores/status", "recoveryplans/status", "runs/status"),
		rule(verbs("create"), "authorization.k8s.io", "subjectaccessreviews"), // who may approve and steer runs
		rule(verbs("create", "patch"), "", "events"),
		rule(verbs("create", "patch"), "events.k8s.io", "events"),
		rule(readVerbs, "", "namespaces", "nodes", "persistentvolumes"),
		rule(readVerbs, "storage.k8s.io", "storageclasses"),
		rule(verbs("list"), "discovery.k8s.io", "endpointslices"), // for /active
		rule(verbs("get", "list", "patch"), "apps", "deployments", "statefulsets", "replicasets", "daemonsets"),
		rule(verbs("get", "list", "patch"), "", "replicationcontrollers"),
		rule(verbs("get", "list", "delete"), "", "pods"),
		rule(verbs("get", "update", "patch"), "apps", "deployments/scale", "statefulsets/scale", "replicasets/scale"),
		rule(verbs("get", "list", "patch"), "batch", "cronjobs", "jobs"),
		// Suspend and resume steps at a run's source.
		rule(verbs("get", "list", "patch"), "kustomize.toolkit.fluxcd.io", "kustomizations"),
		rule(verbs("get", "list", "patch"), "helm.toolkit.fluxcd.io", "helmreleases"),
		rule(verbs("get", "list", "patch"), "argoproj.io", "applications"),
		rule(verbs("get", "list", "update"), "externaldns.k8s.io", "dnsendpoints"), // a superseded site's are emptied
	}
}

// agentAtHome: its leader's lease, the vaults' Secrets, the overlays, the volume tasks and
// the two accounts it captures and restores as.
func agentAtHome() []rbacv1.PolicyRule {
	impersonate := rule(verbs("impersonate"), "", "serviceaccounts")
	impersonate.ResourceNames = []string{CaptureName, RestoreName}
	console := rule(verbs("update", "patch"), "", "secrets") // its certificate is made anew
	console.ResourceNames = []string{v1alpha1.ConsoleSecret}
	return []rbacv1.PolicyRule{
		impersonate, console,
		rule(allVerbs, "coordination.k8s.io", "leases"),
		rule(verbs("get", "list"), "", "secrets"),
		rule(allVerbs, "", "configmaps"),       // what is owed to applications after a cut
		rule(verbs("delete"), "batch", "jobs"), // of steps of runs that ended long ago
		rule(allVerbs, v1alpha1.GroupVersion.Group, "volumetasks", "volumefreezes"),
		rule(readVerbs, v1alpha1.GroupVersion.Group, "nodefences"),
	}
}

// nodeAnywhere is what a fence by the node takes: which pods of the node are of
// which application, and whom those of a sandbox may speak to.
func nodeAnywhere() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(readVerbs, v1alpha1.GroupVersion.Group, "vaults", "applications", "recoveryplans"), // plans: for load balancers
		rule(readVerbs, "", "namespaces", "pods"),
		rule(verbs("get", "list"), "", "services"),
		rule(verbs("get"), "", "nodes", "replicationcontrollers"),
		rule(verbs("list"), "discovery.k8s.io", "endpointslices"),
		rule(verbs("get"), "apps", "deployments", "statefulsets", "replicasets", "daemonsets"),
		rule(verbs("get"), "batch", "cronjobs", "jobs"),
		rule(verbs("get"), "cbt.storage.k8s.io", "snapshotmetadataservices"), // where drivers are asked for changed blocks
	}
}

func nodeAtHome() []rbacv1.PolicyRule {
	token := rule(verbs("create"), "", "serviceaccounts/token") // for these drivers, who ask whether it may see the snapshot
	token.ResourceNames = []string{NodeName}
	return []rbacv1.PolicyRule{
		token, rule(verbs("get"), "snapshot.storage.k8s.io", "volumesnapshots"),
		rule(readVerbs, v1alpha1.GroupVersion.Group, "volumetasks", "volumefreezes", "nodefences"),
		rule(verbs("create"), v1alpha1.GroupVersion.Group, "nodefences"),
		rule(verbs("get", "update", "patch"), v1alpha1.GroupVersion.Group, "volumetasks/status", "volumefreezes/status", "nodefences/status"),
		rule(verbs("get"), "", "secrets", "configmaps"), // the way into vaults; what this site holds
	}
}

// captureAnywhere reads everything, as what belongs to an application is found
// by discovery; it writes snapshots only, and runs hooks. Volumes that were made of
// snapshots have to go with their claims, also where their class would keep them, or
// their node is gone; scratchVolumes keeps it away from all others.
func captureAnywhere() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(readVerbs, "*", "*"),
		rule(writeVerbs, "snapshot.storage.k8s.io", "volumesnapshots", "volumesnapshotcontents"),
		rule(writeVerbs, "groupsnapshot.storage.k8s.io", "volumegroupsnapshotcontents"),
		rule(verbs("patch", "delete"), "", "persistentvolumes"),
		rule(verbs("create"), "", "pods/exec"),
		rule(verbs("create", "delete"), "batch", "jobs"), // of hooks
	}
}

// captureAtHome: scratch claims made of snapshots, the pods that hold them,
// and the leftovers of captures that died.
func captureAtHome() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(writeVerbs, "", "pods", "persistentvolumeclaims"),
		rule(writeVerbs, v1alpha1.GroupVersion.Group, "volumetasks"),
		rule(writeVerbs, "coordination.k8s.io", "leases"),
	}
}

// restoreAnywhere is wide by nature: it may make any object, roles included
// whatever they grant. Whoever may create a Restore that names this account
// is an administrator.
func restoreAnywhere() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(allVerbs, "*", "*"),
		rule(verbs("bind", "escalate"), rbacv1.GroupName, "roles", "clusterroles"),
		{NonResourceURLs: []string{"*"}, Verbs: []string{"get"}},
	}
}

func verbs(v ...string) []string { return v }

func rule(verbs []string, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}
