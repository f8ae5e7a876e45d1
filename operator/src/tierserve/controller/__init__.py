"""The operator: handlers, work queue, reconciler, settings, metrics, events, logs. Only here is kopf imported."""
