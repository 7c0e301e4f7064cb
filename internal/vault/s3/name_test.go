package s3_test

import (
	"crypto/rand"
	"strings"
)

func randomName() string { return strings.ToLower(rand.Text())[:10] }
