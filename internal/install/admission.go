package install

import (
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"davit.dev/davit/api/v1alpha1"
)

// RequesterName is the admission policy that ties Runs to who made them.
const RequesterName = "davit-run-requester"

// ScratchVolumesName is the admission policy that keeps captures away from volumes that are
// not their own.
const ScratchVolumesName = "davit-capture-volumes"

// scratchVolumes has the API server refuse what the account of captures does to volumes
// other than those of scratch claims: rights to volumes know no names beforehand, and who
// may have one deleted may have any deleted.
func scratchVolumes() []runtime.Object {
	return refuses(ScratchVolumesName,
		admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Update, admissionv1.Delete},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"persistentvolumes"}},
		},
		admissionv1.Validation{
			Expression: fmt.Sprintf("request.userInfo.username != 'system:serviceaccount:%[1]s:%[2]s' || "+
				"has(oldObject.spec.claimRef) && has(oldObject.spec.claimRef.namespace) && oldObject.spec.claimRef.namespace == '%[1]s'", v1alpha1.SystemNamespace, CaptureName),
			Message: "captures change volumes of scratch claims alone",
		})
}

// NodeTokenName is the admission policy that keeps tokens of the node processes' account with them.
const NodeTokenName = "davit-node-token"

// nodeToken has the API server refuse tokens that a node process asks for and that would outlive it: it needs
// them for CSI drivers alone, and who got hold of one process could make himself one for good.
func nodeToken() []runtime.Object {
	const uid = "authentication.kubernetes.io/pod-uid"
	return refuses(NodeTokenName,
		admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"serviceaccounts/token"}},
		},
		admissionv1.Validation{
			Expression: fmt.Sprintf("request.userInfo.username != 'system:serviceaccount:%s:%s' || "+
				"has(object.spec.boundObjectRef) && object.spec.boundObjectRef.kind == 'Pod' && "+
				"'%[3]s' in request.userInfo.extra && object.spec.boundObjectRef.uid == request.userInfo.extra['%[3]s'][0]", v1alpha1.SystemNamespace, NodeName, uid),
			Message: "node processes make tokens for their own pod alone",
		}, NodeName)
}

// requester has the API server refuse Runs in another's name: whoever asks for
// one cannot approve it, and an agent sees only the object. Davit's own accounts
// write in the names of those who asked elsewhere.
func requester() []runtime.Object {
	own := fmt.Sprintf("request.userInfo.username.startsWith('system:serviceaccount:%s:')", v1alpha1.SystemNamespace)
	same := "request.operation == 'UPDATE' && object.spec.requestedBy == oldObject.spec.requestedBy"
	return refuses(RequesterName,
		admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule: admissionv1.Rule{
				APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{v1alpha1.GroupVersion.Version}, Resources: []string{"runs"},
			},
		},
		admissionv1.Validation{
			Expression:        "object.spec.requestedBy == request.userInfo.username || " + same + " || " + own,
			MessageExpression: "'spec.requestedBy must be who makes the Run: write ' + request.userInfo.username",
		})
}

// refuses is a policy, and its binding to all of the cluster: what matches the rule is refused
// unless it is valid, also while the policy cannot be evaluated. Names limit it to objects of these names.
func refuses(name string, of admissionv1.RuleWithOperations, valid admissionv1.Validation, names ...string) []runtime.Object {
	fail, exact, scope := admissionv1.Fail, admissionv1.Exact, admissionv1.AllScopes
	of.Scope = &scope
	return []runtime.Object{
		&admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: clusterMeta(name),
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionv1.MatchResources{
					MatchPolicy: &exact, NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
					ResourceRules: []admissionv1.NamedRuleWithOperations{{ResourceNames: names, RuleWithOperations: of}},
				},
				Validations: []admissionv1.Validation{valid},
			},
		},
		&admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: clusterMeta(name),
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		},
	}
}
