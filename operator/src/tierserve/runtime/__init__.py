"""Where a plan becomes real: `local` (processes on this machine); `kube` (server-side apply) will stand beside it."""
