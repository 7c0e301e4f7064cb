package s3

import (
	"testing"
	"time"
)

// Where the bucket stands in the address is the address's to say.
func TestPathStyle(t *testing.T) {
	for want, style := range map[string]bool{
		"https://store.example.com:9000/bucket/davit/key": true,
		"https://bucket.store.example.com:9000/davit/key": false,
	} {
		s, err := Open(Options{
			Endpoint: "https://store.example.com:9000", Bucket: "bucket", Prefix: "davit", Region: "r", PathStyle: style, AccessKey: "a", SecretKey: "s",
		})
		if err != nil {
			t.Fatal(err)
		}
		name, err := s.name("key")
		if err != nil {
			t.Fatal(err)
		}
		u, err := s.core.PresignedGetObject(t.Context(), "bucket", name, time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		if u.RawQuery = ""; u.String() != want {
			t.Errorf("path style %v asks for %s, want %s", style, u, want)
		}
	}
}
