module tierserve.io/kube/pause

go 1.24.0
