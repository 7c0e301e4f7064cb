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

// requester has the API server refuse Runs in another's name: whoever asks for
// one cannot approve it, and an agent sees only the object. Davit's own accounts
// write in the names of those who asked elsewhere.
func requester() []runtime.Object {
	own := fmt.Sprintf("request.userInfo.username.startsWith('system:serviceaccount:%s:')", v1alpha1.SystemNamespace)
	same := "request.operation == 'UPDATE' && object.spec.requestedBy == oldObject.spec.requestedBy"
	fail, exact := admissionv1.Fail, admissionv1.Exact
	scope := admissionv1.AllScopes
	return []runtime.Object{
		&admissionv1.ValidatingAdmissionPolicy{
			ObjectMeta: clusterMeta(RequesterName),
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionv1.MatchResources{
					MatchPolicy: &exact, NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
					ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
						Rule: admissionv1.Rule{
							APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{v1alpha1.GroupVersion.Version},
							Resources: []string{"runs"}, Scope: &scope,
						},
					}}},
				},
				Validations: []admissionv1.Validation{{
					Expression:        "object.spec.requestedBy == request.userInfo.username || " + same + " || " + own,
					MessageExpression: "'spec.requestedBy must be who makes the Run: write ' + request.userInfo.username",
				}},
			},
		},
		&admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: clusterMeta(RequesterName),
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: RequesterName, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			},
		},
	}
}
