package shape

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// ID names the restore of one point in one mode with one namespace mapping.
// The same request always has the same id, so that one which was interrupted
// recognises its own objects. It fits a label and a Kubernetes name.
func ID(point, mode string, namespaces map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\x00%s", point, mode)
	for _, from := range slices.Sorted(maps.Keys(namespaces)) {
		fmt.Fprintf(&b, "\x00%s\x00%s", from, namespaces[from])
	}
	sum := sha256.Sum256([]byte(b.String()))
	return "r" + idEncoding.EncodeToString(sum[:10])
}
