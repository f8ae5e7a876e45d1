"""Local runtime: one small Ray cluster, the gateway and its agent, as processes of this machine.

Data flow: service.yaml -> supervisor (observe, plan, render, apply, report status; once a second) -> processes.
`service` is the entry point for the command line, the demo and the benchmarks.
"""
