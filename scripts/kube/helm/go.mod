// Pins helm, which lints and renders the chart for the tests.
module tierserve.io/kube/helm

go 1.26.0

require helm.sh/helm/v3 v3.22.0
