// Pins what scripts/kube_binaries.py builds: etcd at the release that kube-apiserver is tested with.
module tierserve.io/kube/etcd

go 1.24.0

require go.etcd.io/etcd/server/v3 v3.6.4
