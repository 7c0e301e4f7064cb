package deploy

import (
	"strings"
	"testing"
)

func TestRender(t *testing.T) {
	parts, err := Render(Params{DatabaseImage: "db:1", AppImage: "app:1", LedgerURL: "http://ledger:1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 || parts[0].Name != Cluster || parts[1].Name != Namespaced {
		t.Fatalf("Render() has the parts %v, want cluster and namespaced", parts)
	}
	all := string(parts[0].YAML) + string(parts[1].YAML)
	for _, want := range []string{
		"image: db:1", "image: app:1", `LEDGER_URL: "http://ledger:1"`, `ORDERS_PER_SECOND: "50"`, "namespace: shop\n",
		"kind: StatefulSet", "kind: CronJob", "kind: HorizontalPodAutoscaler", "kind: PodDisruptionBudget",
		"kind: NetworkPolicy", "kind: IngressClass", "kind: PriorityClass", "kind: Warehouse",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("manifests lack %q", want)
		}
	}
	if strings.Contains(all, "<no value>") || strings.Contains(all, "storageClassName") {
		t.Error("manifests hold what nobody asked for")
	}
}

func TestRenderOwned(t *testing.T) {
	out, err := RenderOwned(Params{}, "1-2-3")
	if err != nil || !strings.Contains(string(out), "uid: 1-2-3") {
		t.Errorf("RenderOwned() = %s, %v; want the owner's UID in it", out, err)
	}
	if _, err := RenderOwned(Params{}, ""); err == nil {
		t.Error("RenderOwned() without a UID: no error")
	}
	if _, err := Render(Params{}); err == nil {
		t.Error("Render() without images: no error")
	}
}
