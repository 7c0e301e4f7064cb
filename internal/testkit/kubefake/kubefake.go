// Package kubefake begins the cluster that a unit test has, which answers from memory.
package kubefake

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// converters are those that the fake client would make for itself: which fields of a kind are lists by
// which key. Of the time that it takes to make such a client they are nine tenths, and the same each time.
var converters = sync.OnceValue(func() []managedfields.TypeConverter {
	known := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(known))
	return []managedfields.TypeConverter{applyconfigurations.NewTypeConverter(known), managedfields.NewDeducedTypeConverter()}
})

// NewClientBuilder is fake.NewClientBuilder, sooner.
func NewClientBuilder() *fake.ClientBuilder {
	return fake.NewClientBuilder().WithTypeConverters(converters()...)
}
