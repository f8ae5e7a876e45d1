// Pins KubeRay, whose CRDs the tests of the operator need: they lie in the module itself.
module tierserve.io/kube/kuberay

go 1.25.0

require github.com/ray-project/kuberay/ray-operator v1.6.1
