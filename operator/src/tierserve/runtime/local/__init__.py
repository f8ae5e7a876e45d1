"""The embedded default: one small Ray cluster, the gateway and its agent, as processes of this machine.

The way of the data: service.yaml -> supervisor (observe, place, render, apply, status; once a second) -> processes.
`service` is the door for the command line, the demo and the benches.
"""
