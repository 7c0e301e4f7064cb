package census

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// StockName is the ConfigMap of Davit's namespace that keeps what was seen of images on
	// nodes: kubelets name only their fifty largest.
	StockName = "davit-images"
	// StockKey is its entry.
	StockKey = "images.json"
	// stockFresh is for how long what was seen counts: a node may drop an image that nothing
	// runs.
	stockFresh = 24 * time.Hour
)

// Stock is what was seen of one image.
type Stock struct {
	At    time.Time `json:"at"`
	Nodes int       `json:"nodes"` // that had it
}

// ReadStock reads what was seen lately, by the image's name; what nobody can read is nothing.
func ReadStock(cm *corev1.ConfigMap, now time.Time) map[string]Stock {
	all := map[string]Stock{}
	if json.Unmarshal([]byte(cm.Data[StockKey]), &all) != nil {
		return map[string]Stock{}
	}
	for name, s := range all {
		if age := now.Sub(s.At); age < 0 || age > stockFresh || s.Nodes < 0 {
			delete(all, name)
		}
	}
	return all
}
