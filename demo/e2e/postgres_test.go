package e2e

import (
	"cmp"
	"fmt"
)

// postgres is a PostgreSQL of a test's own, with a Service. What is not said is as most
// tests have it.
type postgres struct {
	namespace string
	name      string // of the StatefulSet and of the Service; else db
	labels    string // of the StatefulSet
	label     string // whose value is the name, on the pods; else app
	replicas  int    // which start side by side; else 1
	class     string // of the volumes; else reflink
	secret    string // that has the password
	pod       string // more of the pod template's spec, as it is indented there
}

// yaml ends with the mark before the next document.
func (p postgres) yaml() string {
	password := "value: secret"
	if p.secret != "" {
		password = "valueFrom: {secretKeyRef: {name: " + p.secret + ", key: password}}"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {%[3]s: %[2]s}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[2]s, namespace: %[1]s, labels: {%[4]s}}
spec:
  serviceName: %[2]s
  replicas: %[5]d
  podManagementPolicy: Parallel
  selector: {matchLabels: {%[3]s: %[2]s}}
  template:
    metadata: {labels: {%[3]s: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 10
      securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}
%[6]s      containers:
      - name: postgres
        image: %[7]s
        imagePullPolicy: IfNotPresent
        args: [-c, min_wal_size=32MB, -c, max_wal_size=64MB]
        env: [{name: POSTGRES_PASSWORD, %[8]s}, {name: PGUSER, value: postgres}, {name: PGDATABASE, value: shop}]
        startupProbe: {exec: {command: [pg_isready, -q]}, periodSeconds: 1, failureThreshold: 600}
        readinessProbe: {exec: {command: [pg_isready, -q]}, periodSeconds: 10}
        volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: %[9]s, resources: {requests: {storage: 256Mi}}}
---`, p.namespace, cmp.Or(p.name, "db"), cmp.Or(p.label, "app"), p.labels, cmp.Or(p.replicas, 1),
		p.pod, rig.Images["shop-db"], password, cmp.Or(p.class, "reflink"))
}
