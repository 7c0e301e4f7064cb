package shape

import (
	"fmt"
	"reflect"
	"strings"
)

// Differ adds the paths at which two documents are not equal. A path ends
// where one of the two has no more structure; numbers are equal by value.
func Differ(path string, want, have any, out *[]string) {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			*out = append(*out, at(path))
			return
		}
		differMaps(path, w, h, out)
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(w) {
			*out = append(*out, at(path))
			return
		}
		for i := range w {
			Differ(fmt.Sprintf("%s[%d]", path, i), w[i], h[i], out)
		}
	default:
		if !reflect.DeepEqual(want, have) && fmt.Sprint(want) != fmt.Sprint(have) {
			*out = append(*out, at(path))
		}
	}
}

func differMaps(path string, want, have map[string]any, out *[]string) {
	for k, v := range want {
		if hv, ok := have[k]; ok {
			Differ(path+"."+k, v, hv, out)
		} else {
			*out = append(*out, at(path+"."+k))
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			*out = append(*out, at(path+"."+k))
		}
	}
}

func at(path string) string { return strings.TrimPrefix(path, ".") }

// Names joins at most n names.
func Names(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}
