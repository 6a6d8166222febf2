// Package programs keeps what the upstream end-to-end suite imports in go.mod, so that `go test -c` can build it.
package programs

import _ "k8s.io/kubernetes/test/e2e"
