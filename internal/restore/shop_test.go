package restore

// shopObjects are a small application with everything that restoring has to
// treat in a way of its own.
func shopObjects() []string {
	return []string{
		`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns","labels":{"kubernetes.io/metadata.name":"shop","team":"a"}},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}`,
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"shop","uid":"u-sa0"},"imagePullSecrets":[{"name":"pull"}],"secrets":[{"name":"tok"}]}`,
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"web","namespace":"shop","uid":"u-sa"}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"pw","namespace":"shop","uid":"u-sec","ownerReferences":[{"apiVersion":"shop.example.com/v1","kind":"Till","name":"main","uid":"u-till","controller":true}]},"data":{"p":"eA=="},"type":"Opaque"}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"tok","namespace":"shop","uid":"u-tok"},"type":"kubernetes.io/service-account-token"}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"conf","namespace":"shop","uid":"u-cm"},"data":{"a":"b"}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-root-ca.crt","namespace":"shop","uid":"u-ca"}}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"r","namespace":"shop","uid":"u-r"},"rules":[]}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"rb","namespace":"shop","uid":"u-rb"},"subjects":[{"kind":"ServiceAccount","name":"web","namespace":"shop"}],"roleRef":{"kind":"Role","name":"r"}}`,
		`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data-db-0","namespace":"shop","uid":"u-pvc","annotations":{"pv.kubernetes.io/bind-completed":"yes","volume.kubernetes.io/selected-node":"n1"},"finalizers":["kubernetes.io/pvc-protection"]},"spec":{"storageClassName":"fast","volumeName":"pv-1","resources":{"requests":{"storage":"1Gi"}}},"status":{"phase":"Bound"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"db","namespace":"shop","uid":"u-svc"},"spec":{"clusterIP":"10.0.0.5","clusterIPs":["10.0.0.5"],"selector":{"app":"db"},"ports":[{"port":5432,"nodePort":30001}]}}`,
		`{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"db","namespace":"shop","uid":"u-ep"}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"tills.shop.example.com","uid":"u-crd"},"spec":{"group":"shop.example.com","scope":"Namespaced","names":{"plural":"tills","kind":"Till"},"versions":[{"name":"v1","served":true}]},"status":{}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"drawers.shop.example.com","uid":"u-crd2"},"spec":{"group":"shop.example.com","scope":"Namespaced","names":{"plural":"drawers","kind":"Drawer"},"versions":[{"name":"v1","served":true}]}}`,
		`{"apiVersion":"shop.example.com/v1","kind":"Drawer","metadata":{"name":"left","namespace":"shop","uid":"u-drawer","ownerReferences":[{"apiVersion":"shop.example.com/v1","kind":"Till","name":"main","uid":"u-till"}]},"spec":{},"status":{"x":1}}`,
		`{"apiVersion":"shop.example.com/v1","kind":"Till","metadata":{"name":"main","namespace":"shop","uid":"u-till","generation":4},"spec":{"n":3}}`,
		`{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db","namespace":"shop","uid":"u-sts"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"db"}},"template":{"metadata":{"labels":{"app":"db"}},"spec":{"nodeSelector":{"disk":"ssd"},"containers":[{"name":"pg"}]}},"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"storageClassName":"fast"}}]}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop","uid":"u-dep","annotations":{"deployment.kubernetes.io/revision":"3"}},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"web"}},"template":{"spec":{"serviceAccountName":"web","containers":[]}}}}`,
		`{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"web-1","namespace":"shop","uid":"u-rs","ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":"web","uid":"u-dep","controller":true}]},"spec":{"replicas":2}}`,
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1-a","namespace":"shop","uid":"u-pod","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-1","uid":"u-rs","controller":true}]},"spec":{}}`,
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bare","namespace":"shop","uid":"u-bare","ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"u-node"}]},"spec":{"nodeName":"n1","containers":[{"name":"c","volumeMounts":[{"name":"kube-api-access-x"}]}],"volumes":[{"name":"kube-api-access-x","projected":{}}]}}`,
		`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"p","namespace":"shop","uid":"u-pdb"},"spec":{}}`,
		`{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q","namespace":"shop","uid":"u-q"},"spec":{}}`,
		`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"hook","uid":"u-hook"},"webhooks":[{"name":"h","clientConfig":{"service":{"namespace":"shop","name":"web"},"caBundle":"Yg=="}}]}`,
		`{"apiVersion":"v1","kind":"Event","metadata":{"name":"e","namespace":"shop","uid":"u-e"}}`,
	}
}
