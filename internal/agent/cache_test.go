package agent

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"davit.dev/davit/api/v1alpha1"
)

// aPoint is a recovery point as the API server tells of it.
const aPoint = `{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPoint","metadata":{
"annotations":{"davit.dev/from-vault":"true","davit.dev/pinned-in-vault":"false"},"creationTimestamp":"2026-01-02T03:04:05Z","generation":1,
"labels":{"davit.dev/application":"shop","davit.dev/managed-by":"davit","davit.dev/vault":"main"},
"managedFields":[{"apiVersion":"davit.dev/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:davit.dev/from-vault":{},
"f:davit.dev/pinned-in-vault":{}},"f:labels":{".":{},"f:davit.dev/application":{},"f:davit.dev/managed-by":{},"f:davit.dev/vault":{}}},"f:spec":{".":{},
"f:application":{},"f:trigger":{}}},"manager":"davit","operation":"Update","time":"2026-01-02T03:04:05Z"},{"apiVersion":"davit.dev/v1alpha1",
"fieldsType":"FieldsV1","fieldsV1":{"f:status":{".":{},"f:bytes":{},"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},
"f:message":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Verified\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},
"f:status":{},"f:type":{}}},"f:consistency":{},"f:epoch":{},"f:finishedAt":{},"f:instant":{},"f:namespaces":{},"f:objects":{},"f:phase":{},"f:site":{},
"f:startedAt":{},"f:storedBytes":{},"f:volumes":{}}},"manager":"davit","operation":"Update","subresource":"status","time":"2026-01-02T03:04:05Z"}],
"name":"NAME","namespace":"davit-system","resourceVersion":"NAME","uid":"NAME"},"spec":{"application":"shop","trigger":"Schedule"},
"status":{"bytes":1234,"conditions":[{"lastTransitionTime":"2026-01-02T03:04:05Z","message":"may be offered","reason":"Succeeded","status":"True","type":"Ready"},
{"lastTransitionTime":"2026-01-02T03:04:05Z","message":"nothing has read it back yet","reason":"NotVerified","status":"Unknown","type":"Verified"}],
"consistency":"crash","epoch":1,"finishedAt":"2026-01-02T03:04:05Z","instant":"2026-01-02T03:04:05Z","namespaces":["shop"],"objects":7,"phase":"Available",
"site":"east","startedAt":"2026-01-02T03:04:05Z","storedBytes":123,"volumes":1}}`

// TestManyPointsInTheCache: what is kept in memory of recovery points leaves out who manages
// which of their fields, which is much of them; and each copy of one is smaller by that.
func TestManyPointsInTheCache(t *testing.T) {
	const n = 2000
	held := func(transform func(any) (any, error)) (each int64) {
		kept := make([]*v1alpha1.RecoveryPoint, n)
		before := heap()
		for i := range kept {
			kept[i] = &v1alpha1.RecoveryPoint{}
			if err := json.Unmarshal([]byte(strings.ReplaceAll(aPoint, "NAME", fmt.Sprintf("shop-%06d", i))), kept[i]); err != nil {
				t.Fatal(err)
			}
			if _, err := transform(kept[i]); err != nil {
				t.Fatal(err)
			}
		}
		each = (heap() - before) / n
		if kept[n-1].Status.Site != "east" || kept[n-1].Name == "" {
			t.Errorf("of the last is left %+v", kept[n-1])
		}
		return each
	}
	whole := held(func(o any) (any, error) { return o, nil })
	stripped := held(cacheOptions().DefaultTransform)
	t.Logf("a point takes %d bytes, and %d in the cache", whole, stripped)
	if stripped > whole*3/4 {
		t.Errorf("a point takes %d bytes in the cache, of %d", stripped, whole)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
